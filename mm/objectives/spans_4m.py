"""Texts with holes, as 4M makes them: a sentinel for every run of masked tokens in the input, and in the target the sentinel
and what it stands for.

Shapes are static, all functions pure: B texts of at most L tokens; a text's tokens are the first places of its row.

Source: span corruption, Raffel et al. 2020 (T5); how texts are fitted to a budget, Mizrahi et al. 2023 (4M-7), their code.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from mm.objectives.packing_4m import Buffer

SHORTER = 0.9  # share that is kept, over the one with which the input was too long


class Spans(NamedTuple):
    """A text with holes.

    Attributes:
      masked: bool[B, L]. begins: bool[B, L], of a run of masked tokens the first one.
      shown: bool[B, L], what has a token in the input: its own, or, where a run begins, the sentinel.
      number: int32[B, L], runs up to here.
    """

    masked: jax.Array
    begins: jax.Array
    shown: jax.Array
    number: jax.Array


def spans(kept: jax.Array, there: jax.Array) -> Spans:
    """The holes where tokens that are there are not kept (bool[B, L] both)."""
    masked = there & ~kept
    begins = masked & ~jnp.pad(masked, ((0, 0), (1, 0)))[:, :-1]
    return Spans(masked, begins, (there & kept) | begins, jnp.cumsum(begins, 1))


def draw_kept(
    key: jax.Array, keep: jax.Array, there: jax.Array, most: jax.Array, chunk: jax.Array | None = None
) -> jax.Array:  # fmt: skip
    """Which tokens are kept, each with probability `keep`; while the input is longer than `most`, less is kept: bool[B, L].

    Args:
      keep: float32[B, 1]. most: int32[B, 1]; where it is 0, `keep` is. chunk: int32[B, L], of each token; None = its own.
    """

    most = jnp.maximum(most, 1)

    def draw(state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        i, keep, kept, long = state
        u = jax.random.uniform(jax.random.fold_in(key, i), there.shape)
        u = u if chunk is None else jnp.take_along_axis(u, chunk, 1)
        kept = jnp.where(long, u < keep, kept)
        long &= spans(kept, there).shown.sum(1, keepdims=True) > most
        return i + 1, jnp.where(long, SHORTER * keep, keep), kept, long

    start = jnp.zeros((), jnp.int32), keep, there, jnp.ones(keep.shape, bool)
    return jax.lax.while_loop(lambda state: state[3].any(), draw, start)[2]


def chunks_of(ids: jax.Array, eos: int | None, first: int, last: int) -> jax.Array:
    """Which chunk each token belongs to, int32[B, L]. One begins with the text, at every id of first .. last, at the eos."""
    begins = (ids >= first) & (ids <= last)
    begins = begins if eos is None else begins | (ids == eos)
    return jnp.cumsum(begins & (jnp.arange(ids.shape[1]) > 0), 1)


def cut(u: jax.Array, s: Spans, most: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where in the target (sentinel, run, sentinel, run, ..., closing sentinel) the part begins that is asked, and how
    long it is: int32[B, 1] each.

    All of it where it fits. Else `most` tokens from a random sentinel on, if there are as many; or from the first one
    on behind which all fits.

    Args:
      u: float32[B, 1] in [0, 1), picks the sentinel.
    """
    runs = s.number[:, -1:]
    length = s.masked.sum(1, keepdims=True) + runs + 1
    at = jnp.cumsum(s.masked, 1) + s.number - 2  # of the sentinel where a run begins
    picked = s.begins & (s.number == 1 + jnp.floor(u * runs).astype(jnp.int32))
    start = jnp.where(picked, at, 0).sum(1, keepdims=True)
    fits = jnp.where(s.begins & (length - at <= most), at, length).min(1, keepdims=True)
    start = jnp.where(length - start >= most, start, fits)
    start = jnp.where(length <= most, 0, start)
    return start, jnp.minimum(length - start, most)


def written(
    ids: jax.Array, s: Spans, visible: jax.Array, start: jax.Array, count: jax.Array, first_sentinel: int
) -> Buffer:  # fmt: skip
    """A text with holes as a buffer of 2 * (L + 1) tokens: the input from 0 on, `count` tokens of the target, `start` and
    following, from `visible` on (the end of the input's budget).

    Args:
      ids: int32[B, L]. visible, start, count: int32[B, 1].
    """
    slots = jnp.arange(2 * (ids.shape[1] + 1))
    seen = slots < s.shown.sum(1, keepdims=True) * (visible > 0)
    asked = (slots >= visible) & (slots < visible + count)
    of = lambda x, t: jnp.take_along_axis(x, t, 1)
    t = sources(s.shown, jnp.broadcast_to(slots, seen.shape))
    told = jnp.where(of(s.begins, t), first_sentinel + of(s.number, t), of(ids, t))
    slot, width = slots - visible + start, s.masked + s.begins.astype(jnp.int32)
    end, t = jnp.cumsum(width, 1), sources(width, slot)
    opens = of(s.begins, t) & (slot == of(end, t) - 2)
    wanted = jnp.where(opens, first_sentinel + of(s.number, t), of(ids, t))
    wanted = jnp.where(slot < end[:, -1:], wanted, first_sentinel + s.number[:, -1:] + 1)
    return Buffer(jnp.where(asked, wanted, jnp.where(seen, told, 0)), seen, asked)


def sources(width: jax.Array, slots: jax.Array) -> jax.Array:
    """Which item fills each slot, where item t fills `width[t]` slots, one item after the other: int32[B, slots].

    Args:
      width: int or bool[B, L]. slots: int32[B, slots]; behind the last item: the last one.
    """
    find = jax.vmap(lambda end, slot: jnp.searchsorted(end, slot, side="right"))
    return jnp.minimum(find(jnp.cumsum(width, 1), slots), width.shape[1] - 1)


def embedded(values: jax.Array, s: Spans, visible: jax.Array) -> Buffer:
    """Embeddings [B, L, features] with holes, the input alone; a sentinel is a zero vector. See `written`."""
    slots = jnp.broadcast_to(jnp.arange(values.shape[1]), s.masked.shape)
    seen = slots < s.shown.sum(1, keepdims=True) * (visible > 0)
    t = sources(s.shown, slots)
    own = seen & ~jnp.take_along_axis(s.begins, t, 1)
    held = jnp.take_along_axis(values, t[..., None], 1) * own[..., None]
    return Buffer(held, seen, jnp.zeros_like(seen))
