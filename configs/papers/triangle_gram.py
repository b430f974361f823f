"""GRAM and TRIANGLE: volumes and areas in place of cosines align three views about as well as pairs do.

    python -m mm.papers run triangle_gram

Three noisy views of a latent of 6 dimensions. Asked: each view for the same row of each other view, by product (the mean of six
recalls at 1), and the first for its pair of the two others, by the score that was trained. What
volumes do not see, an exclusive or, is in `symile`.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import rankdata

from data_pipelines.latent import LatentViews
from mm.config import Data, Experiment, Optim
from mm.evals.towers import embedded
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs, Gram, Pairs, Triangle
from mm.objectives.contrastive.nway import area, volume
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

Score = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""Unit [n, E] of three views -> [n, n]: the first of a row with the two others of another; more is nearer."""


def sum_of_products(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """What pairwise contrast trained."""
    return a @ (b + c).T


def minus_volume(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """What GRAM trained."""
    return -volume(a, jnp.stack([b, c]), jnp.ones((2, len(b)), bool))


def minus_area(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
    """What TRIANGLE trained."""
    return -area(a, b, c)


VIEWS = ("a", "b", "c")
ARMS: dict[str, tuple[Any, Score]] = {
    "pairs": (AllPairs(target=same_example), sum_of_products),
    "gram": (Gram(target=same_example), minus_volume),
    "triangle": (Triangle(target=same_example), minus_area),
    "one pair": (Pairs(of=((0, 1),), target=same_example), sum_of_products),
}
PAPER = Paper(
    title="Gramian Multimodal Representation Learning and Alignment (GRAM); a rival, TRIANGLE, beside it",
    numbers=(15,),
    row="5,6",
    status="D/U",
    formula="Logits are minus scale x the volume of the parallelotope (GRAM: root of the Gram determinant) or the area of the "
    "triangle (TRIANGLE) of the anchor of one example and all other embeddings of another; softmax cross-entropy both ways.",
    expected="volumes within 2e-5 of determinants (relative), areas within 1e-6; of two vectors the volume orders pairs like the "
    "sine of their angle; R@1, in paired runs, at most 2 points below pairwise contrast. One pair alone must fail.",
)


@dataclasses.dataclass(kw_only=True, slots=True)
class ThreeWay:
    """Recall at 1 between views (mean over directions; `pair` by product, `line` by its size: a volume's order of two), and
    of the first view for its tuple (`tuple`)."""

    score: Score
    split: str = "test"
    name: str = "three_way"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        z = [embedded(run, v, self.split) for v in VIEWS]
        group = np.arange(len(z[0]))
        products = [x @ y.T for x in z for y in z if x is not y]
        yield "pair", float(np.mean([p.argmax(1) == group for p in products]))
        yield "line", float(np.mean([np.abs(p).argmax(1) == group for p in products]))
        scores = np.asarray(jax.jit(self.score)(*map(jnp.asarray, z)))
        yield "tuple", float((scores.argmax(1) == group).mean())


def get_config(arg: str = "gram") -> Experiment:
    """`pairs`, `gram`, `triangle` or `one pair`."""
    form, score = ARMS[arg]
    return Experiment(
        name=f"triangle_gram-{arg}",
        task=Towers(
            encoders={m: Dense(hidden=(128,)) for m in VIEWS}, width=16, objectives={"contrast": (1.0, form)}
        ),
        data=Data(source=LatentViews(modalities=VIEWS, latent=6, noise=0.3, rows=(10_000, 500, 1000)), batch_size=256),
        optim=Optim(lr=1e-3, warmup=1, final=1.0, b2=0.999, weight_decay=0.0, clip_norm=0.0),
        evals=(ThreeWay(score=score),),
        steps=500,
        log_every=50,
    )  # fmt: skip


def exact(seed: int) -> dict[str, Any]:
    """How far volumes and areas in float32 are from naive ones in float64, on random unit vectors of 16 dimensions."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(6, 32, 16))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    low = jnp.asarray(z, jnp.float32)
    found = {}
    for n in range(2, 7):
        got = jax.jit(volume)(low[0], low[1:n], jnp.ones((n - 1, 32), bool))
        tuples = [[np.stack([x, *z[1:n, b]]) for b in range(32)] for x in z[0]]
        naive = np.sqrt([[np.linalg.det(t @ t.T) for t in row] for row in tuples])
        found[f"volume error of {n}, 1e-6"] = float(np.abs(got / naive - 1).max()) * 1e6
    sine = np.sqrt(1 - np.square(z[0] @ z[1].T))
    got = jax.jit(volume)(low[0], low[1:2], jnp.ones((1, 32), bool))
    ranks = rankdata(np.stack([np.ravel(got), sine.ravel()]), axis=1)
    found["order by sine"] = float(np.corrcoef(ranks)[0, 1])
    u, v = z[0][:, None] - z[1], z[0][:, None] - z[2]
    heron = np.sqrt((u**2).sum(-1) * (v**2).sum(-1) - (u * v).sum(-1) ** 2) / 2
    found["area error, 1e-6"] = float(np.abs(jax.jit(area)(*low[:3]) - heron).max()) * 1e6
    return {"exact": found}


def arms() -> dict[str, Any]:
    """See `ARMS`; `exact` is not trained."""
    return {name: get_config(name) for name in ARMS} | {"exact": exact}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    asked = ("pair", "line", "tuple")
    r1 = {arm: {k: mean(found, arm, "three_way", k) for k in asked} for arm in ARMS}
    algebra = {k: max(values(found, "exact", "exact", k)) for k in found["exact"][0]["exact"]}
    order = min(values(found, "exact", "exact", "order by sine"))
    near = {
        f"{a}: {k} R@1 at most 2 points below pairwise contrast": r1[a][k] >= r1["pairs"][k] - 0.02
        for a in ("gram", "triangle")
        for k in ("pair", "tuple")
    }
    return Verdict(
        clauses={
            "volumes within 2e-5 of determinants, n = 2 to 6": max(v for k, v in algebra.items() if "volume" in k) <= 20,
            "areas within 1e-6": algebra["area error, 1e-6"] <= 1,
            "two vectors: the order of the sine": order >= 0.9999,
            "one pair alone fails, 10 points below": r1["one pair"]["pair"] <= r1["pairs"]["pair"] - 0.1,
        } | near,
        figures={
            f"{a} {k} R@1": spread(values(found, a, "three_way", k)) for a in ARMS for k in r1[a]
        } | {k: spread(values(found, "exact", "exact", k)) for k in algebra},
    )  # fmt: skip
