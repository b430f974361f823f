"""Hubs: items that are near to every query, and banks of other queries that find them out.

    python -m mm.papers run hubness

Two modalities of one latent, unit(z + 0.8 noise + mean of the modality) in 32 dimensions: the shift makes some items near to
all queries. 1,000 queries, their 1,000 items, and 2,000 other pairs as banks. Nothing is trained.
"""

from typing import Any

import numpy as np

from mm.evals import rescoring
from mm.objectives.contrastive.geometry import chosen, skewness
from mm.papers import Found, Paper, Verdict, mean, spread, values

PAPER = Paper(
    title="Balance Act: Mitigating Hubness in Cross-Modal Retrieval with Query and Gallery Banks (DBNorm), and QB-Norm",
    numbers=(25,),
    row="30",
    status="M",
    formula="A score s becomes beta s - log sum exp(beta x scores of the bank with the item): what everybody likes counts less. "
    "Dynamic: only for queries whose best item is a hub of the bank. Two banks: of queries, and of items.",
    expected="R@1 from about 0.30 to at least 0.55 with the skewness of 10-occurrence from about 5.4 to at most 2; the dynamic "
    "form within 0.02 of it. The scores as they are must fail.",
)


def world(seed: int, queries: int = 1000, bank: int = 2000) -> list[list[np.ndarray]]:
    """[[queries, items], [queries of the bank, items of the bank]], unit rows."""
    rng = np.random.default_rng(seed)
    mean_of = rng.normal(size=(2, 32))

    def pairs(count: int) -> list[np.ndarray]:
        z = rng.normal(size=(count, 32))
        x = [z + 0.8 * rng.normal(size=z.shape) + mean_of[m] for m in (0, 1)]
        return [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in x]

    return [pairs(queries), pairs(bank)]


def measure(seed: int) -> dict[str, Any]:
    """Recall at 1 and skewness of each way to score."""
    (query, item), (query_bank, item_bank) = world(seed)
    raw, bank = query @ item.T, query_bank @ item.T
    centred = [rescoring.centred(x, b.mean(0)) for x, b in ((query, query_bank), (item, item_bank))]
    scores = {
        "raw": raw,
        "QB-Norm": rescoring.inverted_softmax(raw, bank),
        "dynamic": rescoring.dynamic(raw, bank),
        "two banks": rescoring.dual_bank(raw, bank, item_bank @ item.T, 20.0, 1.0),
        "CSLS": rescoring.csls(raw, bank),
        "centred": centred[0] @ centred[1].T,
    }
    return {name: {"r1": float((s.argmax(1) == np.arange(len(s))).mean()), "skewness": skewness(chosen(s))} for name, s in scores.items()}  # fmt: skip


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    r1 = {name: mean(found, "made", name, "r1") for name in found["made"][0]}
    skew = {name: mean(found, "made", name, "skewness") for name in r1}
    return Verdict(
        clauses={
            "raw fails (R@1 at most 0.40)": r1["raw"] <= 0.40,
            "QB-Norm: R@1 at least 0.55": r1["QB-Norm"] >= 0.55,
            "QB-Norm: skewness at most 2": skew["QB-Norm"] <= 2,
            "dynamic within 0.02": r1["dynamic"] >= r1["QB-Norm"] - 0.02,
            "two banks: R@1 at least 0.55, skewness at most 2": r1["two banks"] >= 0.55
            and skew["two banks"] <= 2,
        },
        figures={
            f"{n} {k}": spread(values(found, "made", n, k)) for n in r1 for k in ("r1", "skewness")
        },
    )
