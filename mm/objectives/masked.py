"""Masked generation: cross-entropy of the hidden tokens, each over its own vocabulary only."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from mm.sharding import split_rows
from mm.space import TokenSpace, View


def masked_terms(
    logits_of: Callable[[jax.Array, str], jax.Array],
    space: TokenSpace,
    states_bqd: jax.Array,
    targets: View,
    remat: bool = False,
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Sums and counts of cross-entropy (nats) and of right guesses, per modality.

    The targets of one modality stand together in the decoder's view (views are packed in the order of
    places), so each modality is a run of static capacity: its slot. No [tokens, all ids] array exists.

    Args:
      logits_of: (states [..., D], modality) -> float32 logits [..., its vocabulary].
      states_bqd: decoder states of `targets`.
      remat: logits are computed again for the gradient, so that only one modality's exist at a time.
    """
    terms = {}
    modality = jnp.asarray(space.per_place()["modality"])[targets.place]
    for i, m in enumerate(space.modalities):
        if not m.predicted:
            continue
        mine = (modality == i) & targets.mask
        start = jnp.where(modality < i, targets.mask, False).sum(1)
        capacity = min(m.places, targets.mask.shape[1])
        slot = start[:, None] + jnp.arange(capacity)
        valid = jnp.arange(capacity) < mine.sum(1)[:, None]
        slot = jnp.where(valid, slot, 0)
        states = split_rows(jnp.take_along_axis(states_bqd, slot[..., None], axis=1))
        ids = jnp.take_along_axis(targets.ids, slot, axis=1) - space.offset(m.name)
        summed = partial(_summed, lambda x, name=m.name: logits_of(x, name))
        entropy, right = (jax.checkpoint(summed) if remat else summed)(states, ids, valid)
        count = valid.sum().astype(jnp.float32)
        terms[f"masked/{m.name}"] = (entropy, count)
        terms[f"accuracy/{m.name}"] = (right, count)
    return terms


def _summed(
    logits_of: Callable[[jax.Array], jax.Array], states: jax.Array, ids: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy, and how many guesses are right."""
    logits = logits_of(states)
    log_p = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_p, jnp.where(valid, ids, 0)[..., None], axis=-1)[..., 0]
    right = ((logits.argmax(-1) == ids) & valid).sum().astype(jnp.float32)
    return -(picked * valid).sum(), right
