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

SETTINGS: dict[str, tuple[tuple[tuple[int, ...], ...], float, int]] = {
    f"{which}, r {rate:g}, k {k}": (ways, rate, k)
    for which, ways in {
        "both banks": ((0, 1),),
        "queries alone": ((0,),),
        "as released": ((0,), (1,)),
    }.items()
    for rate, k in ((1.0, 20), (1.2, 200))
}
"""Banks that items are moved away from together, of every way that is averaged; r; k. Bank 0: queries, 1: items."""
PAPER = Paper(
    title="InvGC: Robust Cross-Modal Retrieval by Inverse Graph Convolution",
    numbers=(17,),
    row="31",
    status="M",
    formula="Each item less r times the mean of its k nearest in a bank of items, and less that in a bank of queries, weighted "
    "by their cosine; as released: less the one, less the other, and the two unit vectors averaged.",
    expected="R@1 at least 0.45 at r 1.2, k 200, with less skewness than the items as they are, which must fail (about 0.30). One bank "
    "alone, and the average of two as released, are reported beside it.",
)


def measure(seed: int) -> dict[str, Any]:
    """Recall at 1 and skewness of each setting."""
    (query, item), banks = world(seed)
    moved = {"raw": item}
    for name, (ways, rate, k) in SETTINGS.items():
        away = [
            inverse_graph_convolution(item, tuple(banks[i] for i in way), rate, k) for way in ways
        ]
        mean_of = np.mean(away, axis=0)
        moved[name] = mean_of / np.linalg.norm(mean_of, axis=1, keepdims=True)
    out = {}
    for name, items in moved.items():
        scores = query @ items.T
        right = float((scores.argmax(1) == np.arange(len(query))).mean())
        out[name] = {"r1": right, "skewness": skewness(chosen(scores))}
    return out


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    names = ("raw", *SETTINGS)
    r1, skew = ({n: mean(found, "made", n, k) for n in names} for k in ("r1", "skewness"))
    return Verdict(
        clauses={
            "raw fails (R@1 at most 0.40)": r1["raw"] <= 0.40,
            "R@1 at least 0.45": r1["both banks, r 1.2, k 200"] >= 0.45,
            "less skewness at every setting": max(v for n, v in skew.items() if n != "raw")
            < skew["raw"],
        },
        figures={
            f"{n} {k}": spread(values(found, "made", n, k))
            for n in names
            for k in ("r1", "skewness")
        },
    )
