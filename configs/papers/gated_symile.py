"""Gated Symile: gates leave out of a product the modality that does not fit the candidate.

    python -m mm.papers run gated_symile

Synthetic XNOR: of u and v, 16 signs each, a shows [u, v, u v], b [u, 1, u] and c [1, v, v], behind 80 coordinates of noise. In
every row either b's or c's signs are those of another row, which is no candidate. Asked: a among 2,000, from b and c.
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
from mm.models.heads import Gate
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs, Symile
from mm.objectives.contrastive.forms_with_needs import GatedSymile
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

ARMS: dict[str, tuple[Any, Any]] = {
    "symile": (Symile(), None),
    "gated": (GatedSymile(), Gate()),
    "pairs": (AllPairs(target=same_example), None),
}
GROUPS = ("b corrupted", "c corrupted")
PAPER = Paper(
    title="Gated Symile (a rival of this project's list)",
    numbers=(),
    row="4",
    status="U",
    formula="As `symile`, each modality z of a tuple replaced by g z + (1 - g) times a learned neutral vector. 1 - g is a learned "
    "strength (at first 0.0025) times 1 - the candidate's attention to that modality, over all others and a null slot.",
    expected="gated at least 10 points above plain Symile in both groups: b corrupted, c corrupted. Plain Symile must fail; "
    "pairwise contrast, scored by the sum of products, is reported beside it.",
    seeds=3,
)


@dataclasses.dataclass(kw_only=True)
class CorruptedXnor(MadeSource):
    """a, b, c float32[rows, 128], and `which` int[rows]: 0 where b is corrupted, 1 where c is.

    Attributes:
      bits: of u and of v. noise: standard deviation of all coordinates that are no signal.
    """

    bits: int = 16
    noise: float = 3.0
    width: int = 128
    modalities: tuple[str, ...] = ("a", "b", "c", "which")

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, np.ndarray]:
        u, v, other_u, other_v = rng.choice([-1.0, 1.0], (4, rows, self.bits))
        which = rng.integers(0, 2, rows)
        in_b = np.where(which[:, None] == 0, other_u, u)
        in_c = np.where(which[:, None] == 1, other_v, v)
        one = np.ones_like(u)
        noise = lambda: self.noise * rng.normal(size=(rows, self.width - 3 * self.bits))
        signals = {"a": (u, v, u * v), "b": (in_b, one, in_b), "c": (one, in_c, in_c)}
        made = {n: np.concatenate([*s, noise()], 1).astype(np.float32) for n, s in signals.items()}
        return made | {"which": which}


@dataclasses.dataclass(kw_only=True, slots=True)
class ByGroup:
    """Recall at 1 of a by b and c, per group of rows; by the head, else the product or (`added`) the sum of products."""

    added: bool = False
    split: str = "test"
    name: str = "by_group"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        a, b, c = (jnp.asarray(embedded(run, n, self.split)) for n in "abc")
        head = run.task.head(run.params)
        if head is None:
            scores = a @ (b + c if self.added else b * c).T
        else:
            scores = jax.jit(lambda x, y: head(0, x, y))(a, jnp.stack([b, c]))
            yield "strength", float(jax.nn.sigmoid(head.strength[...]))
        right = np.asarray(scores).argmax(0) == np.arange(len(a))
        which = rows_of(run, "which", self.split)
        yield from ((name, float(right[which == i].mean())) for i, name in enumerate(GROUPS))


def get_config(arg: str = "gated") -> Experiment:
    """`symile`, `gated` or `pairs`."""
    form, head = ARMS[arg]
    return Experiment(
        name=f"gated_symile-{arg}",
        task=Towers(
            encoders={m: Dense() for m in "abc"}, width=64, objectives={"contrast": (1.0, form)}, head=head,
            scale=1.0,
        ),
        data=Data(source=CorruptedXnor(rows=(30_000, 1000, 2000)), batch_size=128),
        optim=Optim(lr=1e-2, warmup=50, b2=0.999, weight_decay=0.01, clip_norm=0.0),
        evals=(ByGroup(added=arg == "pairs"),),
        steps=2000,
        log_every=200,
    )  # fmt: skip


def arms() -> dict[str, Experiment]:
    """See `ARMS`."""
    return {name: get_config(name) for name in ARMS}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    r1 = {a: {g: mean(found, a, "by_group", g) for g in GROUPS} for a in ARMS}
    figures = {f"{a}, {g}": spread(values(found, a, "by_group", g)) for a in ARMS for g in GROUPS}
    return Verdict(
        clauses={
            f"{g}: 10 points above plain Symile": r1["gated"][g] >= r1["symile"][g] + 0.1
            for g in GROUPS
        },
        figures=figures | {"strength": spread(values(found, "gated", "by_group", "strength"))},
    )
