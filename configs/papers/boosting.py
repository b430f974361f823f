"""GQR and DBL: a query that moves towards the consensus of two retrievers, and a branch that must beat its anchor.

    python -m mm.papers run boosting

GQR: 100 queries, each with 50 candidates that two retrievers see with noise of their own. DBL: its hinges against loops, random
scores. Nothing is trained.
"""

from typing import Any

import jax
import numpy as np

from mm.evals.rescoring import refined
from mm.objectives.contrastive.momentum import boosted
from mm.papers import Found, Paper, Verdict, spread, values

QUERIES, CANDIDATES, WIDTH, SCALE, NOISE, RATE = 100, 50, 32, 20.0, 2.0, 1.0
PAPER = Paper(
    title="Guided Query Refinement (GQR), and Deep Boosting Learning (DBL)",
    numbers=(101, 31),
    row="54",
    status="D",
    formula="GQR: gradient descent of a query on KL of (its softmax over candidates + the other retriever's) / 2 from its own, with a "
    "line search. DBL: hinge of the anchor's positive - negative + margin - the student's, or of both apart; hardest negatives.",
    expected="KL never rises, which full steps without a line search must fail; hinges within 1e-6 of the loops (relative); the anchor's "
    "gradient is 0, the student's is not. Recall before and after refinement is reported.",
)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def refinement(rng: np.random.Generator) -> dict[str, float]:
    """Share of steps at which KL rose, with and without the line search; recall at 1 of each way."""
    rose, hits = {"search": 0, "full": 0}, {"first": 0, "other": 0, "refined": 0}
    for _ in range(QUERIES):
        items = unit(rng.normal(size=(CANDIDATES, WIDTH)))
        seen = [unit(items[0] + NOISE / WIDTH**0.5 * rng.normal(size=WIDTH)) for _ in range(2)]
        other = np.exp(SCALE * items @ seen[1])
        other /= other.sum()
        query, trace = refined(seen[0], SCALE * items, other, rate=RATE)
        rose["search"] += int((np.diff(trace) > 0).sum())
        full = refined(seen[0], SCALE * items, other, rate=RATE, search=False)[1]
        rose["full"] += int((np.diff(full) > 0).sum())
        for name, scores in (
            ("first", items @ seen[0]),
            ("other", other),
            ("refined", items @ query),
        ):
            hits[name] += int(scores.argmax() == 0)
    steps = QUERIES * 20
    return {f"rose, {k}": n / steps for k, n in rose.items()} | {
        f"R@1, {k}": n / QUERIES for k, n in hits.items()
    }


def slow(student: np.ndarray, anchor: np.ndarray, margin: float, relative: bool) -> float:
    """`boosted` as a loop: the sum over rows and columns of the hardest hinge, halved."""
    total, size = 0.0, len(student)
    for s, a in ((student, anchor), (student.T, anchor.T)):
        for i in range(size):
            costs = []
            for j in set(range(size)) - {i}:
                if relative:
                    costs.append(max(0, margin + a[i, i] - a[i, j] - (s[i, i] - s[i, j])))
                else:
                    costs.append(
                        max(0, margin + a[i, i] - s[i, i]) + max(0, margin + s[i, j] - a[i, j])
                    )
            total += max(costs)
    return total / 2


def hinges(rng: np.random.Generator) -> dict[str, float]:
    """Relative deviation from the loop of both kinds, and the largest gradients in both branches."""
    student, anchor = rng.normal(size=(2, 12, 12))
    run = jax.jit(
        jax.value_and_grad(lambda s, a, r: boosted(s, a, 0.2, r)[0], argnums=(0, 1)),
        static_argnums=2,
    )
    out = {}
    for name, relative in (("relative", True), ("absolute", False)):
        value, (to_student, to_anchor) = run(student, anchor, relative)
        out[f"{name} off"] = abs(float(value) / slow(student, anchor, 0.2, relative) - 1)
        out[f"{name} student"] = float(np.abs(to_student).max())
        out[f"{name} anchor"] = float(np.abs(to_anchor).max())
    return out


def measure(seed: int) -> dict[str, Any]:
    """Both parts."""
    rng = np.random.default_rng(seed)
    return {"gqr": refinement(rng), "dbl": hinges(rng)}


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    of = lambda part, key: values(found, "made", part, key)
    kinds = ("relative", "absolute")
    return Verdict(
        clauses={
            "GQR: KL never rises": max(of("gqr", "rose, search")) == 0,
            "GQR: with full steps it does": min(of("gqr", "rose, full")) > 0,
            "DBL: hinges within 1e-6": max(max(of("dbl", f"{k} off")) for k in kinds) <= 1e-6,
            "DBL: no gradient in the anchor, some in the student": all(
                max(of("dbl", f"{k} anchor")) == 0 < min(of("dbl", f"{k} student")) for k in kinds
            ),
        },
        figures={f"GQR {k}": spread(of("gqr", k)) for k in found["made"][0]["gqr"]}
        | {
            f"DBL {k}, off by (1e-6)": spread([1e6 * x for x in of("dbl", f"{k} off")])
            for k in kinds
        },
    )
