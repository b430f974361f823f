"""Contrast among n modalities: all pairs, and a fused query against what it has not seen."""

import jax
import jax.numpy as jnp

from mm.objectives.contrastive.pair import pair_loss


def all_pairs(
    z_mbe: jax.Array, there: jax.Array, group: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The pair loss summed over all unordered pairs of modalities.

    Args:
      z_mbe: unit embeddings [M, B, E]. there: bool[M, B]. group: int32[B], same number = positives.
      scale: inverse temperature, scalar.
    """
    positive = group[:, None] == group[None, :]
    total, count = jnp.zeros(()), jnp.zeros(())
    for i in range(z_mbe.shape[0]):
        for j in range(i + 1, z_mbe.shape[0]):
            s, c = pair_loss(scale * z_mbe[i] @ z_mbe[j].T, positive, there[i], there[j])
            total, count = total + s, count + c
    return total, count


def fused_to_hidden(
    fused_be: jax.Array,
    z_mbe: jax.Array,
    hidden: jax.Array,
    there: jax.Array,
    group: jax.Array,
    scale: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Fused embeddings against the unimodal ones of modalities of which nothing was visible.

    Args:
      fused_be: unit [B, E]. z_mbe: unit [M, B, E]. there: bool[M, B], what can be embedded.
      hidden: bool[M, B], where the fused embedding has seen nothing of modality m: the rows that count.
    """
    positive = group[:, None] == group[None, :]
    total, count = jnp.zeros(()), jnp.zeros(())
    for m in range(z_mbe.shape[0]):
        s, c = pair_loss(scale * fused_be @ z_mbe[m].T, positive, hidden[m], there[m])
        total, count = total + s, count + c
    return total, count
