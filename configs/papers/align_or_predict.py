"""When to align, when to predict: four regimes, in closed form.

    python -m mm.papers run align_or_predict

Two views in 20 dimensions share a signal of 3 (strength s) and a nuisance of 17 whose covariance between the views is eta, each
with variance of its own. Which of the two an encoder of 3 directions keeps depends on how it is trained. `python -m
mm.evals.align_or_predict X.npy Y.npy` asks it of any two feature files.
"""

from typing import Any

import numpy as np

from mm.evals.align_or_predict import directions, overlap
from mm.papers import Found, Paper, Verdict, mean, spread, values

DIM, SHARED, ROWS = 20, 3, 5000
REGIMES = {  # (s, variance of x's nuisance, of y's, eta), and the published overlaps of (align, predict)
    "both": ((2.0, 1.0, 1.0, 0.2), (0.988, 0.990)),
    "align alone": ((1.0, 1.0, 30.0, 1.0), (0.969, 0.011)),
    "predict alone": ((2.0, 0.3, 0.3, 0.29), (0.0, 0.964)),
    "neither": ((1.0, 5.0, 5.0, 4.8), (0.0, 0.0)),
}
PAPER = Paper(
    title="When to align, when to predict (arXiv 2606.11190); a claim of this project beside it",
    numbers=(),
    row="51",
    status="M",
    formula="Aligning keeps the top singular vectors of Sxx^-1/2 Sxy Syy^-1/2, predicting those of Sxx^-1/2 Sxy, both together "
    "the top eigenvectors of the sum of their squares, prediction (of y scaled to a mean variance of 1) weighted by 0.5.",
    expected="overlap with the shared directions within 0.02 of the published ones in every regime; with both losses at one "
    "fixed weight at least 0.9 in the two regimes in which only one of them finds it (where the other must fail).",
)


def world(
    seed: int, regime: tuple[float, float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y float[n, D], and the basis of what they share in x's space [D, 3]."""
    rng = np.random.default_rng(seed)
    strength, var_x, var_y, eta = regime
    bases = [np.linalg.qr(rng.normal(size=(DIM, DIM)))[0] for _ in range(2)]
    z = strength * rng.normal(size=(ROWS, SHARED))
    covariance = np.array([[var_x, eta], [eta, var_y]])
    nuisance = rng.multivariate_normal([0, 0], covariance, size=(ROWS, DIM - SHARED))
    x, y = (
        np.concatenate([z + rng.normal(size=z.shape), nuisance[..., i]], 1) @ bases[i].T
        for i in (0, 1)
    )
    return x, y, bases[0][:, :SHARED]


def measure(seed: int) -> dict[str, Any]:
    """Overlap of what each way keeps with what is shared."""
    out = {}
    for name, (regime, _) in REGIMES.items():
        x, y, shared = world(seed, regime)
        found = directions(x, y, SHARED)
        ways = {"align": found.align, "predict": found.predict, "joint": found.joint}
        out[name] = {way: overlap(u, shared) for way, u in ways.items()}
    return out


def arms() -> dict[str, Any]:
    """One, which is not trained."""
    return {"made": measure}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    at = {r: {w: mean(found, "made", r, w) for w in ("align", "predict", "joint")} for r in REGIMES}
    published = {
        f"{r}: as published": max(abs(at[r]["align"] - a), abs(at[r]["predict"] - p)) <= 0.02
        for r, (_, (a, p)) in REGIMES.items()
    }
    return Verdict(
        clauses=published
        | {
            f"{r}: joint at least 0.9, the other alone fails": at[r]["joint"] >= 0.9
            and at[r][other] <= 0.1
            for r, other in (("align alone", "predict"), ("predict alone", "align"))
        },
        figures={f"{r}, {w}": spread(values(found, "made", r, w)) for r in REGIMES for w in at[r]},
    )
