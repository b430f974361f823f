"""What a joint model's embeddings and features are like, before anything is generated or retrieved."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm.evals import kinds as k
from mm.evals.kinds import Kind
from mm.objectives.contrastive.geometry import card
from mm.tasks import Run


@dataclasses.dataclass(kw_only=True, slots=True)
class LinearProbe:
    """How well a linear classifier reads the group from the trunk: mean over tokens of the last encoder layer's states.

    Yields (kind, accuracy). Logistic regression on standardised features of training rows, as scikit-learn has it.

    Attributes:
      train_rows, rows: at most, to learn from and to be asked.
    """

    kinds: tuple[Kind, ...]
    train_rows: int = 2000
    rows: int = 1000
    split: str = "test"
    name: str = "probe"
    when: str = "end"

    def validate(self) -> None:
        k.check(self.kinds, self.split)

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        for kind in self.kinds:
            (x, y), (asked, truth) = (
                self._features(run, kind, split, rows)
                for split, rows in (("train", self.train_rows), (self.split, self.rows))
            )
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            yield kind.name, float((probe.fit(x, y).predict(asked) == truth).mean())

    def _features(
        self, run: Run, kind: Kind, split: str, count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        rows = k.find_rows(run.data, split, kind).distinct()
        rows = rows[np.random.default_rng(run.seed).permutation(len(rows))[:count]]
        layers = run.task.settings.model.encoder_layers
        tokens = {kind.column: k.tokens(run.data, split, kind, rows)}
        return run.task.features(run.params, tokens, layers), rows.group


@dataclasses.dataclass(kw_only=True, slots=True)
class Cards:
    """`geometry.card` of the embeddings of each two kinds, of examples that have both.

    Yields ("a~b", {gap, separability, uniformity, effective_rank, ...}).
    """

    kinds: tuple[Kind, ...]
    rows: int = 1000
    split: str = "test"
    name: str = "card"
    when: str = "end"

    def validate(self) -> None:
        k.check(self.kinds, self.split)

    def run(self, run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
        found = {kind.name: k.find_rows(run.data, self.split, kind) for kind in self.kinds}
        for a, b in itertools.combinations(self.kinds, 2):
            both = np.intersect1d(found[a.name].example, found[b.name].example)[: self.rows]
            z = []
            for kind in (a, b):
                rows = found[kind.name]
                rows = rows[np.searchsorted(rows.example, both)]
                tokens = {kind.column: k.tokens(run.data, self.split, kind, rows)}
                z.append(run.task.embed(run.params, tokens))
            yield f"{a.name}~{b.name}", dict(card(*z))
