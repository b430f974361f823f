"""Sampling only what parses: the automaton of a grammar as arrays, and its two operations for a compiled loop.

A state is int32[1 + registers] per row: where the automaton is, and the numbers that later tokens may not be below. A row
whose given tokens broke the grammar is in `LOST`, where every token may come: nothing is promised of it.

    state = start(tables, rows)
    logits = masked(tables, state, logits, left=size - i)   # what may come, and can still end in time
    state = step(tables, state, ids)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

LOST = -1
NEVER = -1e30  # not -inf: differences of two of them are taken under guidance


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True, slots=True)
class Tables:
    """A grammar over the ids of a vocabulary. Compared by identity, so that a compiled sampler can be kept for it.

    Attributes:
      kind: int32[V], the class of each id: 0 = in no sentence, 1 = the end. number: int32[V], of coordinates.
      after: int32[S, classes], the next state, -1 = refused; the last state is the one behind the end.
      save, floor: int32[S, classes], the register that the number goes to, and that it may not be below; -1 = none.
      shortest: int32[S], the fewest tokens to behind the end. registers: how many there are.
    """

    kind: np.ndarray
    number: np.ndarray
    after: np.ndarray
    save: np.ndarray
    floor: np.ndarray
    shortest: np.ndarray
    registers: int


def trie(sequences: np.ndarray, size: int) -> Tables:
    """The grammar of these sequences and no others, all of one length: what follows the last token is the end.

    Args:
      sequences: int[n, m] of ids below `size`.
    """
    after, places = [{}], np.zeros(len(sequences), np.int64)
    shortest, length = [sequences.shape[1]], sequences.shape[1]
    for i in range(length - 1):
        for row, (place, token) in enumerate(zip(places, sequences[:, i].tolist(), strict=True)):
            if token not in after[place]:
                after[place][token] = len(after)
                after.append({})
                shortest.append(length - i - 1)
            places[row] = after[place][token]
    done = len(after)
    for place, token in zip(places, sequences[:, -1].tolist(), strict=True):
        after[place][token] = done
    table = np.full((done + 1, size + 2), -1, np.int32)
    for place, follow in enumerate(after):
        table[place, np.array(list(follow), int) + 2] = list(follow.values())
    table[done, 1] = done
    none = np.full_like(table, -1)
    return Tables(
        kind=np.arange(2, size + 2, dtype=np.int32), number=np.zeros(size, np.int32), after=table,
        save=none, floor=none, shortest=np.array([*shortest, 0], np.int32), registers=0,
    )  # fmt: skip


def start(tables: Tables, rows: int) -> jax.Array:
    """int32[rows, 1 + registers], before the first token."""
    return jnp.zeros((rows, 1 + tables.registers), jnp.int32)


def allowed(tables: Tables, state: jax.Array, left: jax.Array | int) -> jax.Array:
    """bool[B, V]: the ids that may come next, and after which the sentence can still end within `left` places.

    A floor leaves its own number open at least, and the one place that it is compared with no register leads further,
    so as long as `left` >= `shortest` at the start there is always one. Where it is not (a prompt used the places
    up), the sentence goes on unfinished.

    Args:
      left: places that are left, this one counted.
    """
    place, kind = state[:, 0], jnp.asarray(tables.kind)
    here = jnp.maximum(place, 0)
    after = jnp.asarray(tables.after)[here]  # [B, classes]
    legal = after >= 0
    timely = legal & (jnp.asarray(tables.shortest)[jnp.maximum(after, 0)] < left)
    legal = jnp.where(timely.any(1, keepdims=True), timely, legal)
    floor = jnp.asarray(tables.floor)[here]
    least = jnp.where(floor >= 0, _register(state, floor), 0)
    found = legal[:, kind] & (jnp.asarray(tables.number) >= least[:, kind])
    return found | (place == LOST)[:, None]


def masked(tables: Tables, state: jax.Array, logits: jax.Array, left: jax.Array | int) -> jax.Array:
    """Logits float[B, V] with those of what may not come far below all others."""
    return jnp.where(allowed(tables, state, left), logits, NEVER)


def step(tables: Tables, state: jax.Array, ids: jax.Array) -> jax.Array:
    """The state after one id per row, int32[B]."""
    place, kind = state[:, 0], jnp.asarray(tables.kind)[ids]
    here, number = jnp.maximum(place, 0), jnp.asarray(tables.number)[ids]
    after = jnp.asarray(tables.after)[here, kind]
    save, floor = (jnp.asarray(t)[here, kind] for t in (tables.save, tables.floor))
    least = jnp.where(floor >= 0, _register(state, floor[:, None])[:, 0], 0)
    lost = (place == LOST) | (after < 0) | (number < least)
    saved = jnp.where(save[:, None] == jnp.arange(tables.registers), number[:, None], state[:, 1:])
    return jnp.concatenate([jnp.where(lost, LOST, after)[:, None], saved], 1)


def _register(state: jax.Array, which: jax.Array) -> jax.Array:
    """What is in these registers of each row, int32[B, n]."""
    if state.shape[1] == 1:
        return jnp.zeros(which.shape, jnp.int32)
    return jnp.take_along_axis(state[:, 1:], jnp.maximum(which, 0), axis=1)
