"""Where retrieval puts what was asked for: exact, on the device, a few queries at a time against the whole gallery.

Scores are dot products, of equal ones the irrelevant rank first. What `mm.evals.rescoring` changes of embeddings is done
before; what it takes from the scores of each gallery row (the banks' share) is the `offset` here.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

FEW = 4  # relevant rows that are counted one by one


class Ranks(NamedTuple):
    """Attributes:
    first: int32[q], the place of the best relevant row, 0 = at the top; -1 where there is none.
    precision: float32[q], average precision over all relevant rows; 0 where there is none.
    relevant: int64[q], how many gallery rows are of the query's group.
    chosen: int32[g], how many queries have the row among their k best.
    """

    first: np.ndarray
    precision: np.ndarray
    relevant: np.ndarray
    chosen: np.ndarray


def ranked(
    query: np.ndarray,
    gallery: np.ndarray,
    query_group: np.ndarray,
    gallery_group: np.ndarray,
    *,
    offset: np.ndarray | None = None,
    k: int = 10,
    chunk: int = 256,
) -> Ranks:
    """Ranks of the gallery rows of each query's group.

    Args:
      query: float[q, E]. gallery: float[g, E]. query_group, gallery_group: int[q], int[g].
      offset: float[g], taken from the scores of each gallery row.
      k: of `chosen`. chunk: queries at a time; what is held is chunk x gallery.
    """
    by_group = np.argsort(gallery_group, kind="stable")
    in_order = np.asarray(gallery_group)[by_group]
    begins, ends = (np.searchsorted(in_order, query_group, side) for side in ("left", "right"))
    width = 1 << max(int((ends - begins).max(initial=1)) - 1, 0).bit_length()
    chunk, k = min(chunk, 1 << max(len(query) - 1, 0).bit_length()), min(k, len(gallery))
    whole = [jnp.asarray(x) for x in (gallery, np.zeros(len(gallery), np.float32) if offset is None else offset, gallery_group)]  # fmt: skip
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    chosen = np.zeros(len(gallery), np.int32)
    for start in range(0, len(query), chunk):
        rows = np.minimum(np.arange(start, start + chunk), len(query) - 1)
        place = begins[rows, None] + np.arange(width)
        there = place < ends[rows, None]
        index = by_group[np.minimum(place, len(gallery) - 1)]
        out = _look(jnp.asarray(query[rows]), query_group[rows], index, there, *whole, k=k)
        first, precision, best = (np.asarray(x)[: len(query) - start] for x in out)
        parts.append((first, precision))
        chosen += np.bincount(best.ravel(), minlength=len(gallery)).astype(np.int32)
    empty = (np.zeros(0, np.int32), np.zeros(0, np.float32))
    first, precision = (np.concatenate(x) for x in zip(empty, *parts, strict=True))
    return Ranks(first, precision, ends - begins, chosen)


@functools.partial(jax.jit, static_argnames="k")
def _look(
    query: jax.Array, query_group: jax.Array, index: jax.Array, there: jax.Array,
    gallery: jax.Array, offset: jax.Array, gallery_group: jax.Array, k: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:  # fmt: skip
    """One chunk. index, there: the gallery rows of each query's group, and which of them exist, [c, R]."""
    dot = functools.partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    scores = dot(query.astype(jnp.float32), gallery.astype(jnp.float32).T) - offset
    wrong = query_group[:, None] != gallery_group
    own = jnp.where(there, jnp.take_along_axis(scores, index, 1), -jnp.inf)
    own = -jnp.sort(-own, axis=1)  # best first
    before = _before(scores, wrong, own)
    number = jnp.arange(own.shape[1])
    precision = jnp.where(jnp.isfinite(own), (number + 1) / (before + number + 1), 0).sum(1)
    count = there.sum(1)
    first = jnp.where(count > 0, before[:, 0], -1)
    return first, precision / jnp.maximum(count, 1), jax.lax.top_k(scores, k)[1]


def _before(scores: jax.Array, wrong: jax.Array, own: jax.Array) -> jax.Array:
    """How many wrong rows are ahead of each relevant one: int32[c, R]."""
    if own.shape[1] <= FEW:
        counts = [(wrong & (scores >= own[:, r, None])).sum(1) for r in range(own.shape[1])]
        return jnp.stack(counts, 1)
    # A wrong row is ahead of as many relevant ones as do not score more than it: a histogram of that number.
    reaches = jax.vmap(lambda o, s: jnp.searchsorted(o, s, side="right"))(own[:, ::-1], scores)
    bins = jnp.zeros((len(own), own.shape[1] + 1), jnp.int32)
    number = jax.vmap(lambda b, r, w: b.at[r].add(w))(bins, reaches, wrong.astype(jnp.int32))
    return number[:, ::-1].cumsum(1)[:, :-1]


def median(first: np.ndarray) -> float:
    """The median rank, 1 = at the top, of the queries that have an answer."""
    return float(np.median(first[first >= 0]) + 1)


def mean_rank_variance(firsts: np.ndarray) -> float:
    """How much a query's rank depends on which of K galleries (languages) it asks: int[K, q] -> mean variance over K.

    Source: Hu et al. 2024 (1-to-K).
    """
    return float(np.var(firsts, axis=0).mean())
