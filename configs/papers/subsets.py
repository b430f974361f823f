"""Any subset of the modalities: what is added never makes the answer worse, though what was missing in training told the class.

    python -m mm.papers run subsets

Four noisy views of one of 12 classes. In training a class's own view (class modulo 4) is absent four times out of five, the others one
in ten: not at random. Test rows are whole, and asked by each of the 15 subsets. Any2Seg without its teacher's relations; ImgAny is not here.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mm.config import Data, Experiment, Optim
from mm.data.made import MadeSource
from mm.evals.towers import rows_of
from mm.models.heads import Chain, Fusion
from mm.models.towers import Dense, Table
from mm.objectives.contrastive.forms_with_needs import Fused
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

VIEWS, CLASSES = ("m0", "m1", "m2", "m3"), 12
SUBSETS = [s for n in range(1, 5) for s in itertools.combinations(range(4), n)]
STEPS = [(s, tuple(sorted({*s, m}))) for s in SUBSETS for m in range(4) if m not in s]
ARMS: dict[str, tuple[Any, Any]] = {
    "zeros": (Fused(told=False), Fusion()), "subsets": (Fused(keep=0.5), Fusion()),
    "chain": (Fused(), Chain()), "chain-subsets": (Fused(keep=0.5), Chain()),
}  # fmt: skip
PAPER = Paper(
    title="MultiModN (a chain of modalities), and Any2Seg's training on random subsets",
    numbers=(119, 107),
    row="56",
    status="U",
    formula="A fused vector against vectors of the classes, softmax cross-entropy. Subsets: each modality is hidden with probability 1/2, a "
    "learned vector in its place. Chain: a state that each modality there changes by its own perceptron, a loss behind every one.",
    expected="accuracy falls in at most 2% of all steps from a subset to one with a modality more, with the chain and with random subsets; the same "
    "fused network fed zeros for what is absent, and not told so, must fail (in 10% at least), and its mean accuracy over subsets is lower.",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True)
class Views(MadeSource):
    """Columns: m0 .. m3 float32[16], label int32[]; group = label.

    Attributes:
      noise: standard deviation in each view, of a class's 1. gone: probability that a class's own view is absent in training and
        validation. rest: of each other one.
    """

    noise: tuple[float, ...] = (1.0, 1.25, 1.5, 1.75)
    gone: float = 0.8
    rest: float = 0.1
    rows: tuple[int, int, int] = (10_000, 1000, 5000)
    modalities: tuple[str, ...] = (*VIEWS, "label")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        label = rng.integers(0, CLASSES, rows)
        centres = np.random.default_rng([self.seed, 99]).normal(size=(4, CLASSES, 16))
        made: dict[str, Any] = {"label": label.astype(np.int32), "group": label}
        for m, (name, noise) in enumerate(zip(VIEWS, self.noise, strict=True)):
            made[name] = (centres[m, label] + noise * rng.normal(size=(rows, 16))).astype(
                np.float32
            )
        if split != "test":
            absent = [np.where(label % 4 == m, self.gone, self.rest) for m in range(4)]
            made["present"] = {n: rng.random(rows) >= p for n, p in zip(VIEWS, absent, strict=True)}
        return made


@dataclasses.dataclass(kw_only=True, slots=True)
class AllSubsets:
    """Accuracy by every subset of the views; the share of steps to one view more at which it falls, the largest fall, the mean.

    Attributes:
      told: as `forms_with_needs.Fused`.
    """

    told: bool = True
    split: str = "test"
    name: str = "subsets"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        task, params = run.task, run.params
        label = rows_of(run, "label", self.split)
        rows = {n: rows_of(run, n, self.split) for n in VIEWS}
        shown, blank = ({n: task.embed(params, n, w * x) for n, x in rows.items()} for w in (1, 0))
        classes = task.embed(params, "label", np.arange(CLASSES))
        own, head = task.embed(params, "label", label), jax.jit(task.head(params))
        right: dict[tuple[int, ...], float] = {}
        for subset in SUBSETS:
            z = [(shown if m in subset or self.told else blank)[n] for m, n in enumerate(VIEWS)]
            given = [m in subset or not self.told for m in range(4)]
            fused = np.asarray(head(jnp.stack([*z, own]), jnp.array([*given, False])))
            right[subset] = float(((fused @ classes.T).argmax(1) == label).mean())
            yield "".join(map(str, subset)), right[subset]
        falls = [right[small] - right[large] for small, large in STEPS]
        yield "falls", float(np.mean([f > 0 for f in falls]))
        yield "largest fall", max(0.0, *falls)
        yield "mean", float(np.mean([*right.values()]))


def get_config(arg: str = "chain") -> Experiment:
    """See `ARMS`."""
    form, head = ARMS[arg]
    return Experiment(
        name=f"subsets-{arg}",
        task=Towers(
            encoders={m: Dense(hidden=(64,)) for m in VIEWS} | {"label": Table(size=CLASSES)}, width=32,
            objectives={"class": (1.0, form)}, head=head, scale=10.0,
        ),
        data=Data(source=Views(), batch_size=128),
        optim=Optim(lr=1e-3, warmup=50, b2=0.98, weight_decay=0.01, clip_norm=0.0),
        evals=(AllSubsets(told=form.told),),
        steps=800,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in ARMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    of = {a: {k: mean(found, a, "subsets", k) for k in ("falls", "mean")} for a in ARMS}
    return Verdict(
        clauses={f"{a}: falls in at most 2% of steps": of[a]["falls"] <= 0.02 for a in ("subsets", "chain")}
        | {
            "zeros fail: fall in 10% of steps": of["zeros"]["falls"] >= 0.1,
            "zeros: lower mean accuracy": of["zeros"]["mean"] < min(of["subsets"]["mean"], of["chain"]["mean"]),
        },
        figures={
            f"{a} {k}": spread(values(found, a, "subsets", k))
            for a in ARMS
            for k in ("falls", "largest fall", "mean", "0", "012", "0123")
        },
    )  # fmt: skip
