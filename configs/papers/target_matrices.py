"""Four losses are one: MeVTR, M3CoL, Dialog2Flow and SPACE-2 are the pair loss with a target matrix made of labels.

    python -m mm.papers run target_matrices

Random scores and labels; each loss written out in float64 loops from its formula, beside the pair loss in float32. Nothing is trained.
"""

from typing import Any

import jax
import numpy as np

from mm.objectives.contrastive import targets
from mm.objectives.contrastive.pair import apart, pair_loss, softmax
from mm.papers import Found, Paper, Verdict, spread, values

SIZE, VIDEOS, TEMPERATURE = 24, 9, 0.2
NAMES = ("MeVTR", "M3CoL", "Dialog2Flow", "SPACE-2")
PAPER = Paper(
    title="Multi-event Video-Text Retrieval (MeVTR), M3CoL, Dialog2Flow, SPACE-2",
    numbers=(37, 34, 89, 142),
    row="18",
    status="D",
    formula="MeVTR: -mean over a video's texts of log e^s / (e^s + its negatives). M3CoL: cross-entropy with share and 1 - share on the "
    "two mixed rows. Dialog2Flow: with the softmax of the labels' cosines. SPACE-2: with shared / united nodes of the label tree.",
    expected="values within 1e-6 of the float64 loops (relative), both directions normalised on their own; one-hot targets, or for MeVTR "
    "all positives in every denominator, must fail: off by 1e-4 at least.",
)
loss = jax.jit(pair_loss, static_argnames="reduction")


def labels(rng: np.random.Generator) -> dict[str, Any]:
    """Of 24 examples: the video of a text (-1 = none), partner and share, vectors, tree paths and who has one."""
    path = rng.integers(0, 3, (SIZE, 3))
    path[rng.random(SIZE) < 0.3, 2] = -1
    owner = np.concatenate([np.arange(VIDEOS), rng.integers(-1, VIDEOS, SIZE - VIDEOS)])
    return {
        "MeVTR": (owner, VIDEOS),
        "M3CoL": (rng.permutation(SIZE), rng.uniform(0.5, 1, SIZE)),
        "Dialog2Flow": (rng.normal(size=(SIZE, 4)), TEMPERATURE),
        "SPACE-2": (path, rng.random(SIZE) < 0.7),
    }


def likeness(name: str, known: Any, i: int, j: int) -> float | None:
    """How much j is a positive of i, None where they do not meet: from the labels, one pair at a time."""
    if name == "MeVTR":
        return None if known[0][j] < 0 else float(known[0][j] == i)
    if name == "M3CoL":
        other, share = known
        return (share[i] if i == j else 0.0) + (1 - share[i] if other[i] == j else 0.0)
    if name == "Dialog2Flow":
        a, b = (known[0][k] / np.linalg.norm(known[0][k]) for k in (i, j))
        return float(np.exp(a @ b / known[1]))
    path, labelled = known
    if labelled[i] != labelled[j]:
        return None
    if not labelled[i]:
        return float(i == j)
    a, b = ({tuple(path[k][: d + 1]) for d in range(3) if path[k][d] >= 0} for k in (i, j))
    return len(a & b) / len(a | b)


def slow_row(scores: np.ndarray, likes: list[float | None], dropped: bool) -> float | None:
    """Cross-entropy of one row; None without a positive. `dropped`: other positives leave a positive's denominator."""
    meets = [k for k, t in enumerate(likes) if t is not None]
    total = sum(likes[k] or 0 for k in meets)
    if total == 0:
        return None
    cost = 0.0
    for k in meets:
        below = [m for m in meets if not dropped or m == k or not likes[m]]
        cost -= (likes[k] or 0.0) / total * (scores[k] - np.log(np.exp(scores[below]).sum()))
    return cost


def slow(name: str, scores: np.ndarray, known: Any, dropped: bool) -> float:
    """Mean over the rows of both directions that count."""
    rows, columns = scores.shape
    table = [[likeness(name, known, i, j) for j in range(columns)] for i in range(rows)]
    found = [slow_row(scores[i], table[i], dropped) for i in range(rows)]
    found += [slow_row(scores[:, j], [r[j] for r in table], dropped) for j in range(columns)]
    return float(np.mean([x for x in found if x is not None]))


def measure(seed: int) -> dict[str, Any]:
    """Relative deviations of the pair loss from the loops, and those of what must fail."""
    rng = np.random.default_rng(seed)
    made = {
        "MeVTR": targets.of_events, "M3CoL": targets.of_mixture, "Dialog2Flow": targets.of_label_vectors,
        "SPACE-2": targets.of_tree,
    }  # fmt: skip
    out: dict[str, Any] = {"off": {}, "plain off": {}}
    for name, known in labels(rng).items():
        scores = 2 * rng.normal(size=(VIDEOS if name == "MeVTR" else SIZE, SIZE))
        target, allowed = (np.asarray(x) for x in made[name](*known))
        rows, columns = (np.ones(n, bool) for n in scores.shape)
        event = name == "MeVTR"
        expected = slow(name, scores, known, dropped=event)
        plain = target if event else np.eye(SIZE)
        for kind, t, reduction in (
            ("off", target, apart if event else softmax),
            ("plain off", plain, softmax),
        ):
            total, count = loss(scores, t, rows, columns, allowed_ab=allowed, reduction=reduction)
            out[kind][name] = abs(float(total) / float(count) / expected - 1)
    return out  # fmt: skip


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    off = {n: values(found, "made", "off", n) for n in NAMES}
    plain = {n: values(found, "made", "plain off", n) for n in NAMES}
    return Verdict(
        clauses={f"{n} within 1e-6": max(off[n]) <= 1e-6 for n in NAMES}
        | {f"{n}: plain targets fail (off by 1e-4)": min(plain[n]) >= 1e-4 for n in NAMES},
        figures={f"{n}, off by (1e-6)": spread([1e6 * x for x in off[n]]) for n in NAMES}
        | {f"{n}, plain, off by": spread(plain[n]) for n in NAMES},
    )
