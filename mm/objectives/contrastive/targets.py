"""Who is how much a positive of whom, made of labels: target float32[A, B] and allowed bool[A, B] for the pair loss."""

import jax
import jax.numpy as jnp

from mm.models.layers import unit
from mm.objectives.contrastive.mixing import mixed_targets

Relation = tuple[jax.Array, jax.Array]


def of_events(owner: jax.Array, videos: int) -> Relation:
    """Videos [V] and texts [T], any number of a video's. To be used with `pair.apart`.

    Args:
      owner: int[T], each text's video; -1 = no text.

    Source: Zhang et al. 2023 (MeVTR).
    """
    target = jnp.arange(videos)[:, None] == owner
    return target.astype(jnp.float32), jnp.broadcast_to(owner >= 0, target.shape)


def of_mixture(other: jax.Array, share: jax.Array) -> Relation:
    """Rows that are mixtures: `share` float[B] of themselves, the rest of row `other` int[B].

    Source: Kumar et al. 2024 (M3CoL).
    """
    target = mixed_targets(jnp.eye(len(other)), other, share)
    return target, jnp.ones(target.shape, bool)


def of_label_vectors(label: jax.Array, temperature: float = 0.1) -> Relation:
    """Softmax of the cosines of the labels' embeddings [B, E] / temperature, once the pair loss has normalised it.

    Source: Burdisso et al. 2024 (Dialog2Flow).
    """
    label = unit(label)
    target = jnp.exp((label @ label.T - 1) / temperature)
    return target, jnp.ones(target.shape, bool)


def of_tree(path: jax.Array, labelled: jax.Array) -> Relation:
    """Nodes of a label tree that two examples share / nodes that either has; who has no label is like itself alone.

    Pairs of one labelled and one without are neither positive nor negative.

    Args:
      path: int[B, depth], the nodes from below the root on, numbered within each level; -1 = not so deep.

    Source: He et al. 2022 (SPACE-2), whose trees have several such paths.
    """
    deep = path >= 0
    same = (path[:, None] == path) & deep[:, None] & deep
    shared = jnp.cumprod(same, -1).sum(-1)
    either = deep.sum(-1)[:, None] + deep.sum(-1) - shared
    like = shared / jnp.maximum(either, 1)
    both = labelled[:, None] & labelled
    return jnp.where(both, like, jnp.eye(len(path))), labelled[:, None] == labelled
