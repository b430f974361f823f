"""Everything retrieved by everything: one kind's embedding finds rows of another, and pairs find a
third.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import gammaln

from mm.errors import UserError
from mm.evals import kinds as k
from mm.evals.kinds import Kind
from mm.evals.neighbours import Neighbours
from mm.evals.ranks import median, ranked
from mm.evals.statistics import mean_interval
from mm.tasks import Run

KS = (1, 5, 10)


@dataclasses.dataclass(kw_only=True, slots=True)
class Retrieval:
    """Retrieval by group identity, in all directions between kinds of different modalities.

    Yields ("a->b", {map, interval, r1, r5, r10, chance, queries, gallery}) for unimodal queries and
    ("a+b->c", ...) for fused ones (the parts of one example read together). Galleries are unimodal
    embeddings of distinct items.

    Attributes:
      kinds: what is retrieved by what.
      queries, gallery: items at most of each kind; one with fewer (a word per class) uses them all.
      fused: whether pairs of kinds are queries too.
    """

    kinds: tuple[Kind, ...]
    split: str = "test"
    queries: int = 1000
    gallery: int = 2000
    fused: bool = True
    name: str = "retrieval"
    when: str = "end"

    def __length_hint__(self) -> int:
        pairs = itertools.permutations(self.kinds, 2)
        return sum(a.column != b.column for a, b in pairs) + len([*self._fused_directions()])

    def validate(self) -> None:
        k.check(self.kinds, self.split)
        if min(self.queries, self.gallery) < 1:
            sizes = f"queries={self.queries}, gallery={self.gallery}"
            raise UserError(f"config.evals: retrieval: {sizes}: must be at least 1")

    def run(self, run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
        self.validate()
        rows = {kind.name: self._rows(run, kind) for kind in self.kinds}
        found = {name: self._drawn(run, r.distinct(), self.gallery) for name, r in rows.items()}
        embedded = {kind.name: self._embed(run, (kind, found[kind.name])) for kind in self.kinds}
        shown = Neighbours(run, run.folder / "evals" / self.name, self.split)
        for a, b in itertools.permutations(self.kinds, 2):
            if a.column != b.column:
                query = embedded[a.name][: self.queries]
                asked = found[a.name][np.arange(len(query))]
                name, there = f"{a.name}->{b.name}", found[b.name]
                yield (
                    name,
                    retrieval_metrics(query, embedded[b.name], asked.group, there.group),
                )
                shown.add(name, ((a, asked),), query, (b, there), embedded[b.name])
        for (a, b), c in self._fused_directions():
            parts = self._together(run, rows[a.name], rows[b.name])
            query = self._embed(run, (a, parts[0]), (b, parts[1]))
            name, there = f"{a.name}+{b.name}->{c.name}", found[c.name]
            yield (
                name,
                retrieval_metrics(query, embedded[c.name], parts[0].group, there.group),
            )
            both = ((a, parts[0]), (b, parts[1]))
            shown.add(name, both, query, (c, there), embedded[c.name])
        shown.close(embedded, {name: rows.group for name, rows in found.items()})

    def _rows(self, run: Run, kind: Kind) -> k.Rows:
        """All examples; equal strings count as one item."""
        rows = k.find_rows(run.data, self.split, kind)
        if isinstance(k.read(run.data, self.split, kind, rows[np.arange(1)]), np.ndarray):
            return rows
        return dataclasses.replace(
            rows, item=k.contents(k.read(run.data, self.split, kind, rows), rows)
        )

    def _drawn(self, run: Run, rows: k.Rows, count: int) -> k.Rows:
        return rows[np.random.default_rng(run.seed).permutation(len(rows))[:count]]

    def _together(self, run: Run, a: k.Rows, b: k.Rows) -> tuple[k.Rows, k.Rows]:
        """Random examples that have both parts, no two with the same two items."""
        both = np.intersect1d(a.example, b.example)
        a, b = (r[np.searchsorted(r.example, both)] for r in (a, b))
        _, first = np.unique(np.stack([a.item, b.item]), axis=1, return_index=True)
        index = np.random.default_rng(run.seed).permutation(np.sort(first))[: self.queries]
        return a[index], b[index]

    def _embed(self, run: Run, *parts: tuple[Kind, k.Rows]) -> np.ndarray:
        """float32[n, E]: of one part its unimodal embedding, of several their fused one."""
        inputs = {kind.column: k.tokens(run.data, self.split, kind, r) for kind, r in parts}
        return run.task.embed(run.params, inputs)

    def _fused_directions(self) -> Iterator[tuple[tuple[Kind, Kind], Kind]]:
        if self.fused:
            for a, b in itertools.combinations(self.kinds, 2):
                for c in self.kinds:
                    if len({a.column, b.column, c.column}) == 3:
                        yield (a, b), c


def retrieval_metrics(
    query: np.ndarray,
    gallery: np.ndarray,
    query_group: np.ndarray,
    gallery_group: np.ndarray,
    ks: tuple[int, ...] = KS,
) -> dict[str, Any]:
    """Mean average precision and recall at k of the gallery ranked by dot product.

    Relevant is what is of the query's group. Equal scores rank against the model (the irrelevant
    first), so that a constant embedding gains nothing. Queries without any relevant row in the
    gallery are left out. The interval is over queries.

    Args:
      query: float[q, E].
      gallery: float[g, E].
      query_group, gallery_group: int[q], int[g].

    Returns:
      {map, interval, r1.., median_rank, chance: {map, r1..}, queries, gallery}; chance is the expectation
      of a random ranking, exact.
    """
    found = ranked(query, gallery, query_group, gallery_group)
    asked = np.flatnonzero(found.relevant)
    if not len(asked):
        return {"queries": 0, "gallery": len(gallery)}
    precision, first = found.precision[asked], found.first[asked]
    low, high = mean_interval(precision, asked)
    result: dict[str, Any] = {"map": float(precision.mean())}
    result["interval"] = [max(low, 0.0), min(high, 1.0)]
    result |= {f"r{n}": float((first < n).mean()) for n in ks}
    result["median_rank"] = median(first)
    result["chance"] = chance(found.relevant[asked], len(gallery), ks)
    return result | {"queries": len(asked), "gallery": len(gallery)}


def chance(relevant: np.ndarray, size: int, ks: tuple[int, ...] = KS) -> dict[str, float]:
    """Expected metrics of a random ranking of `size` rows of which `relevant` int[q] are relevant,
    exact.

    A relevant row at rank i has (i - 1)(R - 1) / (N - 1) relevant ones before it on average, so
    E[AP] = (1/N) sum_i (1 + (i - 1)(R - 1) / (N - 1)) / i; a miss at k is hypergeometric.
    """
    r, n = np.asarray(relevant, np.float64), float(size)
    harmonic = float((1 / np.arange(1, size + 1)).sum())
    others = (r - 1) / max(n - 1, 1)
    result = {"map": float(((harmonic + others * (n - harmonic)) / n).mean())}
    for depth in ks:
        rest = n - r
        possible = rest >= depth
        log_miss = gammaln(rest + 1) - gammaln(np.maximum(rest - depth, 0) + 1)
        log_miss -= gammaln(n + 1) - gammaln(max(n - depth, 0) + 1)
        result[f"r{depth}"] = float(np.where(possible, 1 - np.exp(log_miss), 1.0).mean())
    return result
