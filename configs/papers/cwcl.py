"""CWCL: a frozen tower knows who resembles whom, and its similarities are soft targets for the other tower.

    python -m mm.papers run cwcl

Frozen features of 32 dimensions (10 classes, each example its class's centre and something of its own) and recordings that show the
class and noise; 1,000 pairs, batches of 64 with six of every class. Asked: the class of a new recording, by the nearest centre.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm.config import Data, Experiment, Optim
from mm.data.made import MadeSource
from mm.evals.towers import TowerRetrieval, embedded, rows_of
from mm.models.towers import Dense, Given
from mm.objectives.contrastive.forms import AllPairs, Weighted
from mm.objectives.contrastive.views import same_example, same_group
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

CLASSES, WIDTH = 10, 32
ARMS = {
    "infonce": AllPairs(target=same_example),
    "cwcl": Weighted(),
    "labels": AllPairs(target=same_group),
}
PAPER = Paper(
    title="CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss",
    numbers=(12,),
    row="15",
    status="U",
    formula="Cross-entropy of each frozen feature's softmax over recordings with weights (1 + cosine of the frozen features) / 2, which "
    "are made to sum to 1; from recordings to features plain InfoNCE.",
    expected="zero-shot accuracy at batch 64 at least 5 points above InfoNCE, which must fail to reach it; paired by seed at least 2. Reported beside it: the mean "
    "weight off the diagonal, and supervised contrast with the true classes.",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True)
class Classes(MadeSource):
    """Columns: feature float32[32] of length 1, sound float32[64], label int32[]; group = label.

    Attributes:
      own: length of what is each feature's own, of a centre's 1. noise: standard deviation in the sound, of the class's 1.
    """

    own: float = 0.7
    noise: float = 1.5
    rows: tuple[int, int, int] = (1000, 500, 1000)
    modalities: tuple[str, ...] = ("feature", "sound", "label")

    def centres(self) -> np.ndarray:
        """Unit float[10, 32]: what a frozen tower makes of the classes' names."""
        x = np.random.default_rng([self.seed, 99]).normal(size=(CLASSES, WIDTH))
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        label = rng.integers(0, CLASSES, rows)
        own = self.own / WIDTH**0.5 * rng.normal(size=(rows, WIDTH))
        feature = self.centres()[label] + own
        mixers = np.random.default_rng([self.seed, 98])
        heard = mixers.normal(size=(CLASSES, 16))[label] + self.noise * rng.normal(size=(rows, 16))
        sound = np.tanh(heard @ mixers.normal(size=(16, 64)) / 4)
        return {
            "feature": (feature / np.linalg.norm(feature, axis=1, keepdims=True)).astype(
                np.float32
            ),
            "sound": sound.astype(np.float32),
            "label": label.astype(np.int32),
            "group": label,
        }


@dataclasses.dataclass(kw_only=True, slots=True)
class ZeroShot:
    """Accuracy of the nearest class centre; and the mean weight off the diagonal of W of the frozen features."""

    split: str = "test"
    name: str = "zero_shot"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        source = run.data.source
        sound = embedded(run, "sound", self.split)
        label = rows_of(run, "label", self.split)
        yield "accuracy", float(((sound @ source.centres().T).argmax(1) == label).mean())
        u = rows_of(run, "feature", self.split)
        weight = (1 + u @ u.T) / 2
        yield "off_diagonal", float(weight[~np.eye(len(u), dtype=bool)].mean())


def get_config(arg: str = "cwcl") -> Experiment:
    """`infonce`, `cwcl` or `labels`."""
    return Experiment(
        name=f"cwcl-{arg}",
        task=Towers(
            encoders={"feature": Given(), "sound": Dense(hidden=(128,))}, width=WIDTH,
            objectives={"contrast": (1.0, ARMS[arg])},
        ),
        data=Data(source=Classes(), batch_size=64),
        optim=Optim(lr=1e-3, warmup=50, b2=0.98, weight_decay=0.01, clip_norm=0.0),
        evals=(ZeroShot(), TowerRetrieval(a="sound", b="feature")),
        steps=1000,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in ARMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    right = {a: mean(found, a, "zero_shot", "accuracy") for a in ARMS}
    of = lambda arm: values(found, arm, "zero_shot", "accuracy")
    gain = [x - y for x, y in zip(of("cwcl"), of("infonce"), strict=True)]
    return Verdict(
        clauses={
            "zero-shot: 2 points above InfoNCE from every seed": min(gain) >= 0.02,
            "zero-shot: 5 points above InfoNCE": right["cwcl"] >= right["infonce"] + 0.05,
        },
        figures={"gain, paired": spread(gain)}
        | {f"{a} zero-shot": spread(values(found, a, "zero_shot", "accuracy")) for a in ARMS}
        | {
            f"{a} sound->feature by class R@1": spread(
                values(found, a, "retrieval", "sound->feature r1")
            )
            for a in ARMS
        }
        | {
            "mean weight off the diagonal": spread(
                values(found, "cwcl", "zero_shot", "off_diagonal")
            )
        },
    )
