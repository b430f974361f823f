"""4M's form of a masked example, and the views that it packs into.

Each modality has one buffer of tokens with two masks: what the encoder sees, and what the decoder is asked. In a sequence
both parts are texts of their own (what was cut out of the first is the second, with sentinels where it goes), whose
positions begin at 0; the decoder is told every token of the second and asked for the one behind it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mm.sharding import split_rows
from mm.space import Modality, Sequence, TokenSpace, View


class Buffer(NamedTuple):
    """Tokens of one modality.

    Attributes:
      ids: int32[B, L], in the modality's vocabulary; of a dense one float[B, L, features].
      seen, asked: bool[B, L].
    """

    ids: jax.Array
    seen: jax.Array
    asked: jax.Array


def packed(
    buffers: Mapping[str, Buffer], space: TokenSpace, visible: int, targets: int
) -> tuple[View, View]:
    """The encoder's and the decoder's view, modalities in the order of the space; what does not fit is dropped.

    Args:
      visible, targets: most tokens in each.
    """
    inputs, queries, values = [], [], {}
    for m in space.modalities:
        if m.name not in buffers:
            continue
        buffer = buffers[m.name]
        if m.vocabulary is None:
            values[m.name] = buffer.ids
        if m.seen:
            inputs.append(_inputs(m, buffer, space))
        if m.predicted:
            queries.append(_queries(m, buffer, space))
    ids, place, there = _joined(inputs, visible)
    shown = View(ids, place, there, values=values)
    ids, place, given, there = _joined(queries, targets)
    return shown, View(ids, place, there, given)


def _inputs(m: Modality, buffer: Buffer, space: TokenSpace) -> tuple[jax.Array, ...]:
    """Ids on the id line, places, and which of them are seen."""
    row = jnp.broadcast_to(jnp.arange(buffer.seen.shape[1]), buffer.seen.shape)
    ids = row if m.vocabulary is None else buffer.ids + space.offset(m.name)
    return ids, space.starts[m.name] + positions(m, buffer.seen), buffer.seen


def _queries(m: Modality, buffer: Buffer, space: TokenSpace) -> tuple[jax.Array, ...]:
    """Ids that are asked for, places, the ids that are told, and which of them count."""
    start, ids = space.starts[m.name], buffer.ids + space.offset(m.name)
    place = positions(m, buffer.asked)
    if not isinstance(m.layout, Sequence):
        return ids, start + place, jnp.full_like(ids, -1), buffer.asked
    place = start + (jnp.where(place < m.layout.wraps, place, 0) if m.layout.wraps else place)
    return ids[:, 1:], place[:, :-1], ids[:, :-1], buffer.asked[:, :-1] & buffer.asked[:, 1:]


def positions(m: Modality, there: jax.Array) -> jax.Array:
    """int32[B, L]: in a grid or a vector the place itself; in what has a length, the number of tokens before it."""
    if (m.vocabulary is not None and not isinstance(m.layout, Sequence)) or _gridded(m):
        return jnp.broadcast_to(jnp.arange(there.shape[1]), there.shape)
    return jnp.maximum(jnp.cumsum(there, 1) - 1, 0)


def _gridded(m: Modality) -> bool:
    return getattr(m.layout, "grid", None) is not None


def _joined(parts: list[tuple[jax.Array, ...]], size: int) -> tuple[jax.Array, ...]:
    """The first `size` tokens that are there (the last column of each part), of all parts side by side: [B, size] each."""
    *columns, there = (jnp.concatenate(c, 1) for c in zip(*parts, strict=True))
    end = jnp.cumsum(there, 1)
    find = jax.vmap(lambda e: jnp.searchsorted(e, jnp.arange(1, size + 1), method="compare_all"))
    mask = jnp.arange(size) < end[:, -1:]
    slot = jnp.where(mask, find(end), 0)
    picked: list[Any] = [jnp.take_along_axis(c, slot, 1).astype(jnp.int32) for c in columns]
    return tuple(split_rows(x) for x in (*picked, mask))
