"""Symile on real digits: what is written and what is said tell the sum, and no two of the three tell the third.

    python -m mm.papers run symile_digits

An image of the digit a (MNIST), a recording of the digit b (FSDD), and the word of (a + b) mod 10. Any two of the three tell the
third, and any one alone tells nothing of another. Speech is seen as a small log-mel spectrogram.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils.epath import Path

from data_pipelines.digits import Digits
from mm.chunks import mapped
from mm.config import Data, Experiment, Optim
from mm.data.aligned import SPLITS
from mm.data.columns import ArrayColumn
from mm.data.records import CorruptLog
from mm.evals.towers import rows_of
from mm.models.towers import Dense, Table
from mm.objectives.contrastive.forms import AllPairs, Symile
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.fronts import LogMel
from mm.tasks.towers import Towers

NAMES = ("image", "speech", "sum")
FORMS = {"symile": (Symile(), 0.74), "pairs": (AllPairs(), 1 / 0.07)}
PAPER = Paper(
    title="Symile on real digits (a claim of this project)",
    numbers=(3,),
    row="1",
    status="U",
    formula="As `symile`: the sum over features of the product of all three embeddings.",
    expected="each of the three found from the two others in at least 90% of tests (top 1, by its digit); every pairwise loss must "
    "fail, with at most 20%.",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True)
class DigitSums:
    """See the module and `mm.data.Source`: examples of an image and a recording drawn anew, and of their sum mod 10."""

    modalities: tuple[str, ...] = NAMES
    forms: int = 8

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Reads the digits, and makes every recording a spectrogram."""
        digits = Digits(modalities=("image", "speech"), forms=self.forms)
        digits.open(cache, corrupt)
        front = LogMel()
        maps = jax.jit(front.maps)
        self._columns, self._digit = {}, {}
        for split in SPLITS:
            found = digits.columns(split)
            every = {n: column[np.arange(len(column))] for n, column in found.items()}
            spectra = mapped(
                lambda x: np.asarray(maps(x)).reshape(len(x), -1), every["speech"], (512,)
            )
            self._columns[split] = {
                "image": ArrayColumn((every["image"] / 255).astype(np.float32)),
                "speech": ArrayColumn(spectra),
                "sum": ArrayColumn(np.arange(10)),
            }
            self._digit[split] = digits._split(split).digit

    def columns(self, split: str) -> Mapping[str, Any]:
        """Raw columns by modality."""
        return self._columns[split]

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        """Every image once, each with any recording."""
        digit = self._digit[split]
        rng = np.random.default_rng([seed, epoch] if split == "train" else [SPLITS.index(split)])
        image = rng.permutation(len(digit["image"]))
        speech = rng.integers(0, len(digit["speech"]), len(image))
        a, b = digit["image"][image], digit["speech"][speech]
        return {
            "image": image,
            "speech": speech,
            "sum": (a + b) % 10,
            "group": (10 * a + b).astype(np.int32),
        }


@dataclasses.dataclass(kw_only=True, slots=True)
class TheThird:
    """Each modality from the two others, among all rows of the split (at most 2,000): is the best one's digit right?"""

    split: str = "test"
    name: str = "third"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        rows = {n: rows_of(run, n, self.split)[:2000] for n in NAMES}
        z = {n: run.task.embed(run.params, n, rows[n]) for n in NAMES}
        order = run.data.order(self.split, 0, 0)
        asked = np.flatnonzero((order["image"] < 2000) & (order["speech"] < 2000))[:1000]
        a, b = order["group"][asked] // 10, order["group"][asked] % 10
        truth = {"image": a, "speech": b, "sum": (a + b) % 10}
        digit = {n: np.empty(len(rows[n]), int) for n in NAMES}
        digit["sum"] = np.arange(10)
        for n, part in (("image", order["group"] // 10), ("speech", order["group"] % 10)):
            here = order[n] < len(digit[n])
            digit[n][order[n][here]] = part[here]
        for target in NAMES:
            one, other = (z[n][order[n][asked]] for n in NAMES if n != target)
            best = (one * other @ z[target].T).argmax(1)
            yield target, float((digit[target][best] == truth[target]).mean())


def get_config(arg: str = "symile") -> Experiment:
    """`symile` or `pairs`."""
    form, scale = FORMS[arg]
    return Experiment(
        name=f"symile_digits-{arg}",
        task=Towers(
            encoders={"image": Dense(hidden=(256, 128)), "speech": Dense(hidden=(256, 128)), "sum": Table(size=10)},
            width=32, objectives={arg: (1.0, form)}, scale=scale,
        ),
        data=Data(source=DigitSums(), batch_size=256),
        optim=Optim(lr=2e-3, warmup=50, b2=0.99, weight_decay=0.05, clip_norm=0.0),
        evals=(TheThird(),),
        steps=1500,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `FORMS`."""
    return {name: get_config(name) for name in FORMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    right = {a: {n: mean(found, a, "third", n) for n in NAMES} for a in FORMS}
    return Verdict(
        clauses={f"{n} from the two others: 90%": right["symile"][n] >= 0.9 for n in NAMES}
        | {"all pairs fail (at most 20%)": max(right["pairs"].values()) <= 0.2},
        figures={f"{a} {n}": spread(values(found, a, "third", n)) for a in FORMS for n in NAMES},
    )
