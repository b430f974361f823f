"""4M's sampler: modalities one after the other, each pass reads all that is known, the decoder is asked for what is not.

Images and vectors are filled in passes (`maskgit`, `roar`), spans of texts from left to right and then put where their
sentinels stand. Every row has its own random numbers: it does not depend on the rows beside it.

Source: Mizrahi et al. 2023 (4M-7), Bachmann et al. 2024 (4M-21); guidance of several conditions: Liu et al. 2022.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mm import space as spaces
from mm.errors import UserError
from mm.generate.passes_4m import HOLE, SENTINELS, Tokens, passes_of, seen, views_of
from mm.generate.picking import pick
from mm.generate.plan_4m import (
    COLDEST,
    Plan,
    Step,
    check,
    continue_schedule,
    counts_of,
    temperatures,
)
from mm.models.encoder_decoder import EncoderDecoder
from mm.objectives.packing_4m import Buffer
from mm.space import Modality, TokenSpace, View

FEW = 128
"""Tokens of an image below which all passes have one shape."""


class Trunk(Protocol):
    """A model and its token space; hashable by what it is, as what was compiled is kept for it."""

    space: TokenSpace

    def model(self, params: Any) -> EncoderDecoder:
        """The module with these parameters."""
        ...


def generate(
    task: Trunk, params: Any, inputs: Mapping[str, Tokens], plan: Plan, key: jax.Array, *, rows: int = 1, chunk: int = 64,
    sentinels: range = SENTINELS,
) -> dict[str, Tokens]:  # fmt: skip
    """Runs a plan, step after step.

    Args:
      inputs: what is given. An id below 0 is a hole: a token of an image that is not known. A target that is among the
        inputs is continued: its holes are filled, or the spans that its sentinels stand for.
      rows: how many, where nothing is given. chunk: rows at a time; nothing but memory depends on it.
      sentinels: ids of [S_0], [S_1], ... in the vocabularies of texts.

    Returns:
      per target ids int32[n, size] and length int32[n]. A text is what was made, with all that came after an [EOS].

    Raises:
      UserError: inputs or a plan that do not fit the model.
    """
    check(task.space, inputs, plan)
    for name in {name for step in plan for name in (step.target, *step.guided)}:
        text = isinstance(task.space[name].layout, spaces.Sequence)
        if text and (size := task.space.vocabulary(name).size) < sentinels.stop:
            raise UserError(
                f"{name}: {size} ids, sentinels {sentinels[0]} .. {sentinels[-1]}; give `sentinels`"
            )
    known = {name: _given(task.space[name], *given) for name, given in inputs.items()}
    counts = {len(part) for given in known.values() for part in given} or {rows}
    if len(counts) > 1 or min(counts) < 1:
        raise UserError(f"inputs of {sorted(counts)} rows; give as many of each, at least one")
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(min(counts)))
    made = {}
    for i, step in enumerate(plan):
        m = task.space[step.target]
        own = known.pop(m.name, None) or _nothing(m, len(keys), sentinels)
        run = _texts if step.scheme == "autoregressive" else _images
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        made[m.name] = run(task, params, step, known, own, step_keys, chunk, sentinels)
        known[m.name] = made[m.name]
    return made


def _given(m: Modality, said: np.ndarray, length: np.ndarray) -> Tokens:
    """An input as arrays, checked."""
    said, length = np.asarray(said), np.asarray(length, np.int32)
    shape = m.layout.shape if isinstance(m.layout, spaces.Dense) else (m.size,)
    if said.shape[1:] != shape or length.shape != said.shape[:1]:
        raise UserError(
            f"{m.name}: arrays of {said.shape} and lengths of {length.shape}; give (n, {', '.join(map(str, shape))}) and (n,)"
        )
    if length.size and not 0 <= length.min() <= length.max() <= m.size:
        raise UserError(f"{m.name}: lengths {length.min()} .. {length.max()}; at most {m.size}")
    if m.vocabulary is None:
        return said.astype(np.float32), length
    if said.size and said.max() >= m.vocabulary.size:
        raise UserError(f"{m.name}: id {said.max()}; its vocabulary has {m.vocabulary.size}")
    return said.astype(np.int32), length


def _nothing(m: Modality, rows: int, sentinels: range) -> Tokens:
    """Of an image all holes, of a text [S_1]."""
    ids = np.full((rows, m.size), HOLE, np.int32)
    if isinstance(m.layout, spaces.Sequence):
        ids[:, 0] = sentinels[1]
        return ids, np.ones(rows, np.int32)
    return ids, np.full(rows, m.size, np.int32)


def _images(
    task: Trunk, params: Any, step: Step, known: Mapping[str, Tokens], own: Tokens, keys: jax.Array, chunk: int,
    sentinels: range,
) -> Tokens:  # fmt: skip
    """Fills the holes. A row of which something is known goes on where its schedule then stands."""
    counts = counts_of(step, own[0].shape[1])
    amounts = np.zeros((len(keys), len(counts)), np.int32)
    for row, there in zip(amounts, (own[0] >= 0).sum(1), strict=True):
        left = continue_schedule(counts, there)
        row[len(row) - len(left) :] = left
    fresh = own[0].shape[1] >= FEW and bool((own[0] < 0).all())
    ids = [
        np.asarray(_reveal(task, params, step, sentinels, *part, fresh=fresh))[:n]
        for n, *part in _chunks((known, own[0], amounts, keys), len(keys), chunk)
    ]
    return np.concatenate(ids), np.full(len(keys), own[0].shape[1], np.int32)


def _texts(
    task: Trunk, params: Any, step: Step, known: Mapping[str, Tokens], own: Tokens, keys: jax.Array, chunk: int,
    sentinels: range,
) -> Tokens:  # fmt: skip
    """Makes the spans that the texts lack, and puts them there; what is longer than the modality is cut."""
    ids, length = np.zeros_like(own[0]), np.zeros_like(own[1])
    done = 0
    for n, *part in _chunks((known, own, keys), len(keys), chunk):
        spans, ends = map(np.asarray, _write(task, params, step, sentinels, *part))
        for i in range(n):
            before = own[0][done + i, : own[1][done + i]]
            text = merge_spans(before, spans[i, : ends[i]], sentinels)[: ids.shape[1]]
            ids[done + i, : len(text)], length[done + i] = text, len(text)
        done += n
    return ids, length


def _chunks(columns: tuple[Any, ...], rows: int, chunk: int) -> Iterator[tuple[Any, ...]]:
    """(rows that count, parts of one size ...); few rows make a small program."""
    chunk = min(chunk, 1 << max(rows - 1, 0).bit_length())
    for start in range(0, rows, chunk):
        picked = np.minimum(np.arange(start, start + chunk), rows - 1)
        yield min(chunk, rows - start), *jax.tree.map(lambda x, picked=picked: x[picked], columns)


def merge_spans(text: np.ndarray, spans: np.ndarray, sentinels: range = SENTINELS) -> np.ndarray:
    """A text whose sentinels are replaced by what stands behind the same sentinels in `spans`: int32[n].

    A sentinel that `spans` has not is left out, and what `spans` says of one that the text has not; one that it has twice
    goes on there.
    """
    found: dict[int, list[int]] = {}
    into: list[int] = []
    for token in spans.tolist():
        if token in sentinels:
            into = found.setdefault(token, [])
        else:
            into.append(token)
    parts = (found.get(t, []) if t in sentinels else [t] for t in text.tolist())
    return np.array([t for part in parts for t in part], np.int32)


@partial(jax.jit, static_argnames=("task", "step", "sentinels", "fresh"))
def _reveal(
    task: Trunk, params: Any, step: Step, sentinels: range, known: dict[str, Any], given: jax.Array, amounts: jax.Array,
    keys: jax.Array, fresh: bool = False,
) -> jax.Array:  # fmt: skip
    """Fills an image's holes in passes.

    Each asks for tokens (`roar`: for as many as it adds, at random places, `maskgit`: for all that are unknown), and keeps
    the surest; where several are as sure, as all are at temperature 0, the first places.

    Args:
      given: int32[B, L]. amounts: int32[B, passes], how many tokens each pass adds. keys: [B].
      fresh: nothing of the image is given in any row, so that how much is known in a pass is known before.

    Returns:
      int32[B, L].
    """
    model, m = task.model(params), task.space[step.target]
    passes = passes_of(task.space, step, known, sentinels)
    counts, roar = counts_of(step, m.size), step.scheme == "roar"
    heat = jnp.asarray(temperatures(step.temperature, step.cooling, counts), jnp.float32)
    order = jax.vmap(lambda k: jax.random.uniform(k, (m.size,)))(_folded(keys, len(counts)))

    def body(i: jax.Array, ids: jax.Array, read: int, slots: int) -> jax.Array:
        unknown = ids < 0
        asked = unknown & (_rank(jnp.where(unknown, order, 2)) < amounts[:, i, None])
        own = Buffer(jnp.maximum(ids, 0), ~unknown, asked if roar else unknown)
        view, queries = views_of(task.space, passes, own, m.name, slots, read)
        states = model.decode(queries, model.encode(view), view, silent=True)
        logits = passes.combined(model.logits(states, m.name))
        there, place = queries.mask[: len(ids)], queries.place[: len(ids)]
        place = jnp.where(there, place - task.space.starts[m.name], 0)
        u = jax.vmap(lambda k, p: jax.random.uniform(k, (m.size,))[p])(_folded(keys, i), place)
        drawn, sure = draw(u, logits, heat[i], step.top_k, step.top_p)
        kept = there & (_rank(jnp.where(there, -sure, 1)) < amounts[:, i, None])
        place = jnp.where(kept, place, m.size)
        return jax.vmap(lambda row, p, new: row.at[p].set(new, mode="drop"))(ids, place, drawn)

    first, ids = (amounts.sum(0) > 0).argmax(), given  # what all rows have behind them
    for start, stop, read, slots in stages(counts, roar, fresh):
        run = partial(body, read=read, slots=slots)
        ids = jax.lax.fori_loop(jnp.maximum(first, start), stop, run, ids)
    return ids


def stages(
    counts: np.ndarray, roar: bool, fresh: bool, parts: int = 4
) -> list[tuple[int, int, int, int]]:
    """Passes start .. stop - 1 of one shape, with as many tokens of the image to read as they know at most, and as many queries.

    Fewer are read at first and asked for at last; an image of few tokens is one stage, as each is a program.

    Args:
      counts: int[passes], tokens that each adds. fresh: see `_reveal`; else rows may know any number.
    """
    size, passes = int(counts.sum()), len(counts)
    parts = min(parts, passes) if size >= FEW else 1
    ends = [passes * (i + 1) // parts for i in range(parts)]
    found = []
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        known = int(counts[: stop - 1].sum()) if fresh else size
        slots = int(counts[start:stop].max() if roar else counts[start:].sum())
        found.append((start, stop, known, max(slots, 1)))
    return found


@partial(jax.jit, static_argnames=("task", "step", "sentinels"))
def _write(
    task: Trunk, params: Any, step: Step, sentinels: range, known: dict[str, Any], own: tuple[jax.Array, jax.Array],
    keys: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """A text's spans, token after token: from the text's first sentinel to the one behind its last, or to `step.tokens`.

    Returns:
      int32[B, 1 + tokens], and how many of them count, int32[B].
    """
    model, m = task.model(params), task.space[step.target]
    passes = passes_of(task.space, step, known, sentinels)
    text, size = seen(m, *own), step.tokens or m.size
    marks = text.seen & (text.ids >= sentinels.start) & (text.ids < sentinels.stop)
    start = jnp.take_along_axis(text.ids, marks.argmax(1)[:, None], 1)
    last = jnp.where(marks, text.ids, -1).max(1) + 1
    place = jnp.arange(1 + size)

    def views(spans: jax.Array, asked: jax.Array) -> tuple[View, View]:
        asked = jnp.broadcast_to(asked, spans.shape)
        joined = Buffer(
            jnp.concatenate([text.ids, spans], 1),
            jnp.pad(text.seen, ((0, 0), (0, 1 + size))),
            jnp.pad(asked, ((0, 0), (m.size, 0))),
        )
        return views_of(task.space, passes, joined, m.name, size)

    spans = jnp.pad(start, ((0, 0), (0, size)))
    view, _ = views(spans, place < 1)
    encoded = model.encode(view)

    def body(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        i, spans, ends, ended = carry
        _, queries = views(spans, place <= i + 1)
        states = model.decode(queries, encoded, view, silent=True)
        here = jax.lax.dynamic_slice_in_dim(states, i, 1, 1)
        logits = passes.combined(model.logits(here, m.name))
        u = jax.vmap(lambda k: jax.random.uniform(k, (1,)))(_folded(keys, i))
        drawn, _ = draw(u, logits, jnp.float32(step.temperature), step.top_k, step.top_p)
        new = jnp.where(ended, 0, drawn[:, 0])
        spans = spans.at[:, i + 1].set(new)
        return i + 1, spans, jnp.where(ended, ends, i + 2), ended | (new == last)

    nothing = ~marks.any(1)
    carry = jnp.int32(0), spans, jnp.where(nothing, 0, 1).astype(jnp.int32), nothing
    go_on = lambda carry: (carry[0] < size) & ~carry[3].all()
    _, spans, ends, _ = jax.lax.while_loop(go_on, body, carry)
    return spans, ends


def draw(
    u: jax.Array, logits: jax.Array, temperature: jax.Array, top_k: float, top_p: float
) -> tuple[jax.Array, jax.Array]:
    """One id per token, and its probability after temperature and filters (1 at temperature 0).

    Args:
      u: float32[B, S], uniform in [0, 1). logits: float32[B, S, V].

    Returns:
      int32[B, S], float32[B, S].
    """
    scaled = (logits - logits.max(-1, keepdims=True)) / jnp.maximum(temperature, COLDEST)
    scaled = filtered(scaled, top_k, top_p)
    weights = jnp.exp(scaled)
    ids = jnp.where(temperature > 0, pick(weights, u), scaled.argmax(-1).astype(jnp.int32))
    p = jnp.take_along_axis(weights, ids[..., None], -1)[..., 0] / weights.sum(-1)
    return ids, jnp.where(temperature > 0, p, 1)


def filtered(logits: jax.Array, top_k: float, top_p: float) -> jax.Array:
    """Logits [..., V] with -inf for all but the `top_k` likeliest ids, and of these the fewest whose probabilities reach `top_p`.

    Args:
      top_k, top_p: see `Step`. The likeliest id always stays; of like ones the lower.
    """
    if not top_k and not top_p:
        return logits
    rank = jnp.argsort(jnp.argsort(-logits))
    if top_k:
        most = int(top_k) if top_k >= 1 else max(1, int(top_k * logits.shape[-1]))
        logits = jnp.where(rank < most, logits, -jnp.inf)
    if 0 < top_p < 1:
        p = jnp.sort(jax.nn.softmax(logits), descending=True)
        before = jnp.take_along_axis(jnp.cumsum(p, -1) - p, rank, -1)
        logits = jnp.where((before < top_p) | (rank == 0), logits, -jnp.inf)
    return logits


def _rank(x: jax.Array) -> jax.Array:
    """How many along the last axis come before each, by value and then by place."""
    place = jnp.arange(x.shape[-1])
    one, other = x[..., :, None], x[..., None, :]
    return ((other < one) | ((other == one) & (place < place[:, None]))).sum(-1)


def _folded(keys: jax.Array, i: Any) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(keys, i)
