"""InvGC: items moved away from their neighbours, against hubs.

    python -m mm.papers run invgc

The made embeddings of `hubness`.
"""

from typing import Any

import numpy as np

from configs.papers.hubness import world
from mm.evals.rescoring import inverse_graph_convolution
from mm.objectives.contrastive.geometry import chosen, skewness
from mm.papers import Found, Paper, Verdict, mean, spread, values

SETTINGS = {
    "raw": None,
    "both banks, r 1, k 20": (1.0, 20, slice(None)),
    "both banks, r 1.2, k 200": (1.2, 200, slice(None)),
    "queries alone, r 1, k 20": (1.0, 20, slice(1)),
    "queries alone, r 1.2, k 200": (1.2, 200, slice(1)),
}
PAPER = Paper(
    title="InvGC: Robust Cross-Modal Retrieval by Inverse Graph Convolution",
    numbers=(17,),
    row="31",
    status="M",
    formula="Each item less r times the mean of its k nearest in a bank of items and in one of queries, weighted by their "
    "cosine; the two results averaged.",
    expected="R@1 at least 0.45 at r 1.2, k 200, with less skewness than the items as they are, which must fail (about 0.30).",
)


def measure(seed: int) -> dict[str, Any]:
    """Recall at 1 and skewness of each setting."""
    (query, item), banks = world(seed)
    out = {}
    for name, setting in SETTINGS.items():
        moved = item
        if setting:
            rate, k, which = setting
            moved = inverse_graph_convolution(item, tuple(banks[which]), rate, k)
        scores = query @ moved.T
        right = float((scores.argmax(1) == np.arange(len(query))).mean())
        out[name] = {"r1": right, "skewness": skewness(chosen(scores))}
    return out


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    r1, skew = ({n: mean(found, "made", n, k) for n in SETTINGS} for k in ("r1", "skewness"))
    return Verdict(
        clauses={
            "raw fails (R@1 at most 0.40)": r1["raw"] <= 0.40,
            "both banks: R@1 at least 0.45": r1["both banks, r 1.2, k 200"] >= 0.45,
            "queries alone: R@1 at least 0.45": r1["queries alone, r 1.2, k 200"] >= 0.45,
            "less skewness at every setting": max(v for n, v in skew.items() if n != "raw")
            < skew["raw"],
        },
        figures={
            f"{n} {k}": spread(values(found, "made", n, k))
            for n in SETTINGS
            for k in ("r1", "skewness")
        },
    )
