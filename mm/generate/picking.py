"""A draw from each of many discrete laws, with one random number for each instead of one for each id."""

import jax
import jax.numpy as jnp

BLOCK = 128  # ids whose weights are added up first


def pick(weights: jax.Array, u: jax.Array) -> jax.Array:
    """The id at which the running sum of weights passes u times their total: int32[...].

    First the block of ids in which it does, then the id there: running sums over all ids would take many passes over them.

    Args:
      weights: float32[..., V], not negative, not all 0; an id without weight is never picked.
      u: float32[...] in [0, 1).
    """
    size = weights.shape[-1]
    padded = jnp.pad(weights, [(0, 0)] * (weights.ndim - 1) + [(0, -size % BLOCK)])
    blocks = padded.reshape(*weights.shape[:-1], -1, BLOCK)
    sums = blocks.sum(-1)
    total = sums.cumsum(-1)
    aim = u * total[..., -1]
    block = _first_over(total, sums, aim)
    here = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    before = jnp.take_along_axis(total - sums, block[..., None], axis=-1)
    within = _first_over(before + here.cumsum(-1), here, aim)
    return (block * BLOCK + within).astype(jnp.int32)


def _first_over(running: jax.Array, own: jax.Array, aim: jax.Array) -> jax.Array:
    """The first place at which the running sum is above the aim; by rounding there may be none: the last that has a weight."""
    there = own > 0
    over = there & (running > aim[..., None])
    last = own.shape[-1] - 1 - there[..., ::-1].argmax(-1)
    return jnp.where(over.any(-1), over.argmax(-1), last)
