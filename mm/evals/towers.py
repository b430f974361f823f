"""Questions to the towers of `mm.tasks.towers`."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm.evals.ranks import mean_rank_variance, ranked
from mm.evals.retrieval import retrieval_metrics
from mm.objectives.contrastive.geometry import card
from mm.tasks import Run

Tokens = tuple[np.ndarray, np.ndarray]
"""Unit float32[n, N, E], and bool[n, N], which exist."""


def rows_of(run: Run, name: str, split: str = "test") -> np.ndarray:
    """All raw rows of a column."""
    column = run.data.raw(split)[name]
    return np.asarray(column[np.arange(len(column))])


def embedded(run: Run, name: str, split: str = "test") -> np.ndarray:
    """All rows of a modality, unit float32[n, width]."""
    return run.task.embed(run.params, name, rows_of(run, name, split))


@dataclasses.dataclass(kw_only=True, slots=True)
class Pick:
    """Share of rows whose `target` is found among `candidates` from all of `given`, by the product of all embeddings.

    Attributes:
      candidates: a column's values to choose from, as rows; they must hold the true ones.
    """

    target: str
    given: tuple[str, ...]
    candidates: tuple[tuple[float, ...], ...]
    split: str = "test"
    name: str = "pick"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        truth = rows_of(run, self.target, self.split)
        z = np.prod([embedded(run, name, self.split) for name in self.given], axis=0)
        values = np.asarray(self.candidates, truth.dtype)
        best = (z @ run.task.embed(run.params, self.target, values).T).argmax(1)
        yield "accuracy", float((values[best] == truth).all(1).mean())


@dataclasses.dataclass(kw_only=True, slots=True)
class TowerRetrieval:
    """Retrieval of `b` by `a` and back, by dot product; a row's own group is what it looks for."""

    a: str
    b: str
    split: str = "test"
    name: str = "retrieval"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        z = {n: embedded(run, n, self.split) for n in (self.a, self.b)}
        group = run.data.order(self.split, 0, 0)["group"]
        for x, y in ((self.a, self.b), (self.b, self.a)):
            found: dict[str, Any] = retrieval_metrics(z[x], z[y], group, group)
            for key in ("r1", "r5", "map", "median_rank"):
                yield f"{x}->{y} {key}", found[key]


@dataclasses.dataclass(kw_only=True, slots=True)
class Card:
    """`geometry.card` of two modalities' embeddings."""

    a: str
    b: str
    split: str = "test"
    name: str = "card"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        x, y = (embedded(run, n, self.split) for n in (self.a, self.b))
        yield from card(x, y).items()


@dataclasses.dataclass(kw_only=True, slots=True)
class LeaveOneOut:
    """Recall at 1 of each modality by the mean of all others' embeddings, averaged over modalities."""

    split: str = "test"
    name: str = "leave_one_out"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        names = list(run.task.settings.encoders)
        z = np.stack([embedded(run, n, self.split) for n in names])
        group = np.arange(z.shape[1])
        found = [ranked(z.sum(0) - own, own, group, group).first for own in z]
        yield "r1", float(np.mean([(first == 0).mean() for first in found]))


@dataclasses.dataclass(kw_only=True, slots=True)
class Languages:
    """Retrieval of `image` by each of several texts that say the same: how alike they do.

    Yields mrv (mean over examples of the variance over texts of the rank), worst and mean recall at 1.
    """

    image: str
    texts: tuple[str, ...]
    split: str = "test"
    name: str = "languages"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        images = embedded(run, self.image, self.split)
        group = np.arange(len(images))
        texts = (embedded(run, n, self.split) for n in self.texts)
        first = np.stack([ranked(z, images, group, group).first for z in texts])
        r1 = (first == 0).mean(1)
        yield "mrv", mean_rank_variance(first)
        yield "worst", float(r1.min())
        yield "mean", float(r1.mean())


@dataclasses.dataclass(kw_only=True, slots=True)
class Swapped:
    """Share of rows whose `a` scores higher with its `b` than with the same row of column `wrong`, an altered b.

    Attributes:
      late: scores are late interactions (max, both directions), not products of pooled vectors.
    """

    a: str
    b: str
    wrong: str
    late: bool = False
    split: str = "test"
    name: str = "swapped"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        names = ((self.a, self.a), (self.b, self.b), (self.b, self.wrong))
        embed, score = run.task.embed, lambda x, y: (x * y).sum(1)
        if self.late:
            embed, score = run.task.embed_tokens, self._late
        a, right, wrong = (
            embed(run.params, tower, rows_of(run, column, self.split)) for tower, column in names
        )
        yield "accuracy", float((score(a, right) > score(a, wrong)).mean())

    def _late(self, a: Tokens, b: Tokens) -> np.ndarray:
        products = np.einsum("bnd,bmd->bnm", a[0], b[0])
        products = np.where(a[1][:, :, None] & b[1][:, None], products, -np.inf)
        best = lambda axis, there: np.where(there, products.max(axis), 0).sum(1) / there.sum(1)
        return best(2, a[1]) + best(1, b[1])
