"""Is what was generated as varied and as real as real data? Beside every figure stands the same
figure of real training rows in the place of the generated ones, against the same test rows.

`ArrayFidelity` compares in the features of `mm.evals.features`, `TextFidelity` compares strings as
they are. Both also offer what the two baselines need: rows that a memory without a model would
answer with.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from mm.evals import features, statistics

FIT_ROWS = 5000  # more rows move the components little and cost most of the time


def beside(found: dict[str, float], real: dict[str, float]) -> dict[str, float | None]:
    """Each figure, its `_real` one and, of coverage and diversity, the ratio (None: undefined)."""
    figures = {}
    for name, value in found.items():
        figures |= {name: value, f"{name}_real": real[name]}
        if name in ("coverage", "diversity"):
            figures[f"{name}_ratio"] = value / real[name] if real[name] > 0 else np.nan
    return {k: v if np.isfinite(v) else None for k, v in figures.items()}


class ArrayFidelity:
    """Generated arrays (pictures, waveforms) against real ones.

    Args:
      train, train_group: training rows [n, ...] and their groups int[n], in random order.
      test, test_group: the real rows to be matched, each item once.
    """

    def __init__(
        self,
        front: Callable[[Any], np.ndarray],
        train: np.ndarray,
        train_group: np.ndarray,
        test: np.ndarray,
        test_group: np.ndarray,
    ):
        self.features = features.fit(front, train[:FIT_ROWS])
        self.train, self.train_group = self.features(train), train_group
        self.test, self.test_group = self.features(test), test_group
        self._real: dict[int, dict[str, float]] = {}

    def compare(self, made: np.ndarray, condition: np.ndarray) -> dict[str, Any]:
        """Figures of generated rows; `_real` marks training rows in their place (as many, if there
        are).

        Args:
          made: raw rows [n, ...].
          condition: int[n], the group that each was to be of.
        """
        points = self.features(made)
        found, real = self._figures(points, condition), self._reference(len(points))
        found["nearest_train"] = float(np.median(statistics.nearest(points, self.train)[0]))
        return beside(found, real)

    def _figures(self, points: np.ndarray, condition: np.ndarray) -> dict[str, float]:
        # As many points as test rows, or many prototypes would fill every ball around few of them.
        coverage, density = statistics.coverage_density(self.test, points[: len(self.test)])
        return {
            "coverage": coverage,
            "density": density,
            "frechet": statistics.frechet(points, self.test),
            "diversity": statistics.diversity(points, condition),
        }

    def _reference(self, count: int) -> dict[str, float]:
        if count not in self._real:
            real = self._figures(self.train[:count], self.train_group[:count])
            # Here the held-out rows are the measure: a training row is at distance 0 from itself.
            real["nearest_train"] = float(np.median(statistics.nearest(self.test, self.train)[0]))
            self._real[count] = real
        return self._real[count]

    def coverage_of_train(self, index: np.ndarray) -> float:
        """Coverage when training rows `index` are the answers (-1 = none)."""
        used = np.unique(index[: len(self.test)])
        return statistics.coverage_density(self.test, self.train[used[used >= 0]])[0]

    def classify(self, raw: np.ndarray) -> np.ndarray:
        """The group of raw rows by their nearest training rows: a classifier that is no judge."""
        return statistics.knn_classify(self.features(raw), self.train, self.train_group)

    def prototypes(self) -> dict[int, int]:
        """Per group the training row nearest the group's mean."""
        found = {}
        for g in np.unique(self.train_group):
            own = np.flatnonzero(self.train_group == g)
            mean = self.train[own].mean(0, keepdims=True)
            found[int(g)] = int(own[statistics.nearest(mean, self.train[own])[1][0, 0]])
        return found


class TextFidelity:
    """Generated strings against real ones, compared whole: of few facts, every combination is a
    string.

    Args:
      train, train_group: training strings and their groups, in random order.
      test, test_group: real strings of the test split.
      reader: strings -> their groups, which is how a text is classified.
    """

    def __init__(
        self,
        train: list[str],
        train_group: np.ndarray,
        test: list[str],
        test_group: np.ndarray,
        reader: Callable[[list[str]], np.ndarray],
    ):
        self.train, self.train_group = list(train), train_group
        self.test, self.test_group = list(test), test_group
        self.known = set(self.train)
        self.classify = reader

    def compare(self, made: list[str], condition: np.ndarray) -> dict[str, Any]:
        """Figures of generated strings; `_real` marks as many training strings in their place."""
        n = len(made)
        found = self._figures(made, condition)
        real = self._figures(self.train[:n], self.train_group[:n])
        found["in_training"] = float(np.mean([t in self.known for t in made]))
        real["in_training"] = float(np.mean([t in self.known for t in self.test]))
        return beside(found, real)

    def _figures(self, texts: list[str], condition: np.ndarray) -> dict[str, Any]:
        made, real = Counter(texts), Counter(self.test)
        apart = sum(abs(made[t] / len(texts) - real[t] / len(self.test)) for t in made | real)
        return {
            "coverage": sum(c for t, c in real.items() if t in made) / len(self.test),
            "distinct": len(made),
            "total_variation": apart / 2,
            "diversity": _differing(texts, condition),
        }

    def coverage_of_train(self, index: np.ndarray) -> float:
        """Coverage when training strings `index` are the answers (-1 = none)."""
        made = {self.train[i] for i in np.unique(index[index >= 0])}
        return float(np.mean([t in made for t in self.test]))

    def prototypes(self) -> dict[int, int]:
        """Per group its most frequent training string (the first of equals)."""
        found = {}
        for g in np.unique(self.train_group):
            own = np.flatnonzero(self.train_group == g)
            likeliest = Counter(self.train[i] for i in own).most_common(1)[0][0]
            found[int(g)] = next(int(i) for i in own if self.train[i] == likeliest)
        return found


def _differing(texts: list[str], condition: np.ndarray) -> float:
    """Probability that two strings of one condition differ, averaged over conditions."""
    spread = []
    for c in np.unique(condition):
        counts = Counter(texts[i] for i in np.flatnonzero(condition == c))
        n = counts.total()
        if n > 1:
            spread.append(1 - sum(k * (k - 1) for k in counts.values()) / (n * (n - 1)))
    return float(np.mean(spread)) if spread else 0.0


def draw_of_class(groups: np.ndarray, wanted: np.ndarray, seed: int) -> np.ndarray:
    """For each wanted group a random row of it, without repeating before all were used; -1 where
    there is none.

    Args:
      groups: int[rows].
      wanted: int[n].

    Returns:
      int64[n] indices into `groups`.
    """
    rng = np.random.default_rng(seed)
    drawn = np.full(len(wanted), -1, np.int64)
    for g in np.unique(wanted):
        own, places = rng.permutation(np.flatnonzero(groups == g)), np.flatnonzero(wanted == g)
        if len(own):
            drawn[places] = np.resize(own, len(places))
    return drawn
