"""Geodesic mixup: points on the arc between a picture and its caption are hard negatives that spread both out.

    python -m mm.papers run mixing

Sprites of 16 x 16 pixels with captions, two perceptrons that begin in narrow cones and a fixed scale of 100, where CLIP's loss leaves
them. Beside it the arithmetic: arcs (m2-mix, m3-mix) and curves of several modalities (CM3's fusion) stay on the sphere.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.sprites import WORDS, Combinations
from mm.config import Data, Experiment, Optim
from mm.evals.towers import TowerRetrieval, embedded
from mm.models.towers import Dense
from mm.objectives.contrastive.forms import AllPairs, Geodesic
from mm.objectives.contrastive.geometry import log_mean_kernel
from mm.objectives.contrastive.mixing import bezier, slerp
from mm.objectives.contrastive.views import same_example
from mm.papers import Found, Paper, Verdict, mean, spread, values
from mm.tasks import Run
from mm.tasks.towers import Towers

CLIP = {"clip": (1.0, AllPairs(target=same_example))}
ARMS = {
    "clip": CLIP,
    "m2-mix": CLIP | {"mix": (1.0, Geodesic())},
    "m3-mix": CLIP | {"mix": (1.0, Geodesic(inside=True))},
}
PAPER = Paper(
    title="Geodesic Multi-Modal Mixup for Robust Fine-Tuning (m2-mix, m3-mix), and CM3's spherical fusion",
    numbers=(6, 82),
    row="13",
    status="D/U",
    formula="The point at share s of the arc from x to y: sin((1 - s) angle) / sin(angle) x + sin(s angle) / sin(angle) y. m2-mix: CLIP's loss + the "
    "same with such points of the other examples as negatives; m3-mix: + mixtures of two pictures, of two captions, of both.",
    expected="points are of length 1, the ends are x and y, and small angles are right (1e-6); the straight line must fail (0.1), the formula as released is "
    "no number at angle 0. Alignment + uniformity is lower than with CLIP's loss alone from every seed, which must fail to reach it, with R@1 "
    "at most half a point lower.",
)


class OneHotWords(Combinations):
    """Captions are float32[words x 21], one-hot."""

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        columns = super().made(rng, rows, split)
        return columns | {"caption": np.eye(len(WORDS), dtype=np.float32)[columns["caption"]]}


@dataclasses.dataclass(kw_only=True, slots=True)
class Spread:
    """Mean squared distance of pairs; log mean exp(-2 squared distance) of two rows of one modality or of both; their sum."""

    split: str = "test"
    name: str = "spread"
    when: str = "end"

    def run(self, run: Run) -> Iterator[tuple[str, float]]:
        x, y = (embedded(run, n, self.split).astype(np.float64) for n in ("image", "caption"))
        align = float(np.square(x - y).sum(1).mean())
        parts = [log_mean_kernel(*pair) for pair in ((x, x), (y, y), (x, y))]
        uniform = float(np.log(np.mean(np.exp(parts) * [1, 1, 2]) * 3 / 4))
        yield from {"align": align, "uniform": uniform, "sum": align + uniform}.items()


def exact(seed: int) -> dict[str, Any]:
    """Errors of arcs and curves in float32, of the straight line, and of the formula as released at angle 0."""
    rng = np.random.default_rng(seed)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)
    z = unit(rng.normal(size=(4, 2000, 16)))
    x, share = z[0], rng.random(2000)
    angle = np.concatenate([[0.0], np.logspace(-7, np.log10(3), 1999)])[:, None]
    across = unit(z[1] - (z[1] * x).sum(1, keepdims=True) * x)
    at = lambda s: np.cos(s * angle) * x + np.sin(s * angle) * across
    y = at(1.0)

    def released(x: jax.Array, y: jax.Array, share: jax.Array) -> jax.Array:
        theta = jnp.arccos((x * y).sum(1, keepdims=True))
        s = share[:, None]
        return (jnp.sin((1 - s) * theta) * x + jnp.sin(s * theta) * y) / jnp.sin(theta)

    low = lambda x: jnp.asarray(x, jnp.float32)
    arc, curve = jax.jit(slerp), jax.jit(bezier)
    length = lambda x: np.abs(np.linalg.norm(np.asarray(x, np.float64), axis=1) - 1)
    mixed, fused = arc(low(x), low(y), low(share)), curve(low(z), low(share))
    ends = [arc(low(x), low(y), low(s * np.ones(2000))) - low(e) for s, e in ((0, x), (1, y))]
    ends += [curve(low(z), low(s)) - low(e) for s, e in ((0.0, z[0]), (1.0, z[-1]))]
    line = (1 - share)[:, None] * x + share[:, None] * y
    same = jax.jit(released)(low(np.eye(16)), low(np.eye(16)), low(share[:16]))
    return {
        "off": {
            "length": float(max(length(mixed).max(), length(fused).max())),
            "ends": float(max(np.abs(e).max() for e in ends)),
            "small angles": float(np.abs(mixed - at(share[:, None]))[angle[:, 0] < 0.1].max()),
            "line": float(length(line).max()),
            "released": float(jnp.isnan(same).mean()),
        }
    }


def get_config(arg: str = "m2-mix") -> Experiment:
    """`clip`, `m2-mix` or `m3-mix`."""
    return Experiment(
        name=f"mixing-{arg}",
        task=Towers(
            encoders={m: Dense(hidden=(256,), cone=3.0) for m in ("image", "caption")}, width=16,
            objectives=ARMS[arg], scale=100.0, learned=False,
        ),
        data=Data(source=OneHotWords(scaled=True, level=5, side=16, rows=(10_000, 500, 1000)), batch_size=128),
        optim=Optim(lr=1e-3, warmup=1, final=1.0, b2=0.999, weight_decay=0.0, clip_norm=0.0),
        evals=(Spread(), TowerRetrieval(a="image", b="caption")),
        steps=600,
        log_every=100,
    )  # fmt: skip


def arms() -> dict[str, Any]:
    """See `ARMS`, and the arithmetic, which is not trained."""
    return {name: get_config(name) for name in ARMS} | {"exact": exact}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    off = {k: values(found, "exact", "off", k) for k in found["exact"][0]["off"]}
    total = {a: values(found, a, "spread", "sum") for a in ARMS}
    below = lambda arm: all(x < y for x, y in zip(total[arm], total["clip"], strict=True))
    r1 = {a: mean(found, a, "retrieval", "image->caption r1") for a in ARMS}
    mixed = ("m2-mix", "m3-mix")
    return Verdict(
        clauses={f"{k} within 1e-6": max(off[k]) <= 1e-6 for k in ("length", "ends", "small angles")}
        | {
            "the straight line fails (0.1)": min(off["line"]) >= 0.1,
            "as released, angle 0 is no number": min(off["released"]) == 1,
        }
        | {f"{a}: alignment + uniformity lower from every seed": below(a) for a in mixed}
        | {f"{a}: R@1 at most half a point lower": r1[a] >= r1["clip"] - 0.005 for a in mixed},
        figures={f"{a} {k}": spread(values(found, a, "spread", k)) for a in ARMS for k in ("align", "uniform", "sum")}
        | {f"{a} R@1": spread(values(found, a, "retrieval", "image->caption r1")) for a in ARMS}
        | {f"{k}, off by (1e-6)": spread([1e6 * x for x in off[k]]) for k in ("length", "ends", "small angles")},
    )  # fmt: skip
