"""ANNCUR: exact scores of a query with a few anchors tell which items to score exactly.

    python -m mm.papers run anncur

Scores of a scorer that looks at both sides at once: tanh of a product of rank 10, and noise of 0.05. 500 training queries are
scored with all 5,000 items; 200 test queries with the anchors, and with the 100 items that look best by them.
"""

from typing import Any

import numpy as np

from mm.evals.rescoring import by_anchors, rescored
from mm.papers import Found, Paper, Verdict, mean, spread, values

ANCHORS, BUDGET = (25, 50, 100, 200), 100
PAPER = Paper(
    title="Efficient Nearest Neighbor Search for Cross-Encoder Models using Matrix Factorization",
    numbers=(32, 219),
    row="32",
    status="M",
    formula="Scores of a query with all items = its scores with the anchors x pseudo-inverse of the anchors' columns x the "
    "training queries' scores.",
    expected="recall of the best 10 at least 0.55 with 50 anchors and 100 rescored; as many random items must fail (0.03).",
)


def measure(seed: int) -> dict[str, Any]:
    """Recall at 10 after rescoring, by the number of anchors; and with as many random items."""
    rng = np.random.default_rng(seed)
    items = rng.normal(size=(5000, 10))
    score = lambda q: np.tanh(q @ items.T / 10**0.5) + 0.05 * rng.normal(size=(len(q), len(items)))
    train, test = (score(rng.normal(size=(n, 10))) for n in (500, 200))
    best = np.argsort(-test, axis=1)[:, :10]
    share = lambda picked: float(np.mean([len(set(p[:10]) & set(b)) / 10 for p, b in zip(picked, best, strict=True)]))  # fmt: skip
    out = {}
    for number in ANCHORS:
        anchors = rng.permutation(len(items))[:number]
        estimate = by_anchors(test[:, anchors], train, anchors)
        guess = rescored(rng.random(test.shape), test, BUDGET + number)
        out[f"{number} anchors"] = {
            "recall": share(rescored(estimate, test, BUDGET)),
            "random": share(guess),
        }
    return out


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    names = [f"{number} anchors" for number in ANCHORS]
    recall = {n: mean(found, "made", n, "recall") for n in names}
    return Verdict(
        clauses={
            "50 anchors: at least 0.55": recall["50 anchors"] >= 0.55,
            "random items fail (at most 0.1)": max(mean(found, "made", n, "random") for n in names)
            <= 0.1,
        },
        figures={
            f"{n} {k}": spread(values(found, "made", n, k))
            for n in names
            for k in ("recall", "random")
        },
    )
