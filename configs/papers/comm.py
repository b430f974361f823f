"""CoMM: what two modalities say only together is kept by contrast of the fused pair with augmented copies of itself.

    python -m mm.papers run comm

Each modality shows a shared class of 4, a class of 4 of its own and a fair bit; the synergy is the exclusive or of the two bits.
Linear probes on frozen embeddings. After Trifeature (pictures there, vectors here, and 4 classes: with 10 the synergy probe reached
0.61 on another draw of the data, on which these settings were chosen).
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mm.config import Data, Experiment, Optim
from mm.data.made import MadeSource
from mm.evals.towers import embedded, rows_of
from mm.models.heads import Fusion
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs
from mm.objectives.contrastive.forms_with_needs import Comm
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

NOISE = 0.3


def noised(key: jax.Array, rows: jax.Array) -> jax.Array:
    """The augmentation: other noise, and a fifth of all coordinates blank."""
    noise_key, blank_key = jax.random.split(key)
    rows = rows + NOISE * jax.random.normal(noise_key, rows.shape)
    return jnp.where(jax.random.bernoulli(blank_key, 0.2, rows.shape), 0, rows)


ARMS: dict[str, tuple[Any, Any]] = {
    "pairs": (AllPairs(target=same_example), None),
    "comm": (Comm(augment=noised), Fusion()),
    "untrained": (Comm(augment=noised), Fusion()),
}
CLASSES = {"redundant": ("shared",), "unique": ("own_x", "own_y"), "synergy": ("synergy",)}
PAPER = Paper(
    title="CoMM: What to Align in Multimodal Contrastive Learning? (a rival of this project's list)",
    numbers=(),
    row="58",
    status="U",
    formula="InfoNCE(Z', Z'') + half the sum over modalities of InfoNCE(Z_m, Z') + InfoNCE(Z_m, Z''): Z' and Z'' fuse two "
    "augmentations of all modalities, Z_m modality m alone.",
    expected="a linear probe of the synergy at least 0.70 with CoMM, while pairwise contrast must fail (at most 0.60, chance "
    "0.50); classes that are shared or one modality's own are reported beside it, and the fused network untrained.",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True)
class Trifeature(MadeSource):
    """x and y float32[rows, width]: tanh of mixed one-hot classes (shared, own) and a bit; the classes themselves.

    Attributes:
      classes: of what is shared and of what is own. noise: standard deviation, added behind the tanh.
    """

    classes: int = 4
    width: int = 64
    noise: float = 0.1
    modalities: tuple[str, ...] = ("x", "y", "shared", "own_x", "own_y", "synergy")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        mixers = np.random.default_rng([self.seed, 99])
        shared, *own = rng.integers(0, self.classes, (3, rows))
        bits = rng.integers(0, 2, (2, rows))
        one_hot = np.eye(self.classes)
        made = {"shared": shared, "own_x": own[0], "own_y": own[1], "synergy": bits[0] ^ bits[1]}
        for name, mine, bit in zip("xy", own, bits, strict=True):
            mixer = mixers.normal(size=(2 * self.classes + 1, self.width))
            code = np.concatenate([one_hot[shared], one_hot[mine], bit[:, None] - 0.5], 1)
            clean = np.tanh(code @ mixer)
            made[name] = (clean + self.noise * rng.normal(size=clean.shape)).astype(np.float32)
        return made


@dataclasses.dataclass(kw_only=True, slots=True)
class Probes:
    """Accuracy on test rows of logistic regressions on frozen embeddings, fitted on `fitted` training rows."""

    fitted: int = 3000
    split: str = "test"
    name: str = "probes"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        from sklearn.linear_model import LogisticRegression

        head = run.task.head(run.params)

        def features(split: str) -> np.ndarray:
            z = jnp.stack([embedded(run, m, split) for m in "xy"])
            fused = jnp.concatenate(z, 1) if head is None else jax.jit(head)(z, jnp.ones(2, bool))
            return np.asarray(fused)

        train, test = features("train")[: self.fitted], features(self.split)
        for kind, columns in CLASSES.items():
            scores = []
            for column in columns:
                probe = LogisticRegression(C=100.0, max_iter=200)
                probe.fit(train, rows_of(run, column, "train")[: self.fitted])
                scores.append(probe.score(test, rows_of(run, column, self.split)))
            yield kind, float(np.mean(scores))


def get_config(arg: str = "comm") -> Experiment:
    """`pairs`, `comm`, or `untrained`: comm's networks as they were drawn."""
    form, head = ARMS[arg]
    steps = 1 if arg == "untrained" else 2000  # a warmup's first step has rate 0: nothing moves
    return Experiment(
        name=f"comm-{arg}",
        task=Towers(
            encoders={m: Dense(hidden=(128,)) for m in "xy"}, width=64, objectives={arg: (1.0, form)}, head=head,
            scale=10.0, learned=False,
        ),
        data=Data(source=Trifeature(rows=(10_000, 1000, 2000)), batch_size=256),
        optim=Optim(lr=1e-3, warmup=min(50, steps), b2=0.999, weight_decay=0.01, clip_norm=0.0),
        evals=(Probes(),),
        steps=steps,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in ARMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    synergy = {a: mean(found, a, "probes", "synergy") for a in ARMS}
    return Verdict(
        clauses={
            "CoMM: synergy at least 0.70": synergy["comm"] >= 0.70,
            "pairwise contrast fails: synergy at most 0.60": synergy["pairs"] <= 0.60,
        },
        figures={
            f"{arm} {kind}": spread(values(found, arm, "probes", kind))
            for arm in ARMS
            for kind in CLASSES
        },
    )
