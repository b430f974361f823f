"""Two frozen spaces joined in closed form: the subspace first, then the map.

    python -m mm.papers run closed_form_maps

Two spaces of 32 dimensions, each a mixture of 8 that they share and 24 of its own. From 200 pairs: which map lets a row of one
find its partner among 1,000 of the other? And a classifier of the one space's rows, used on the other's after a shift of means.
"""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from mm.evals import maps
from mm.evals.ranks import ranked
from mm.papers import Found, Paper, Verdict, mean, spread, values

SHARED, OWN, PAIRS, ASKED = 8, 24, 200, 1000
NUISANCE = (0.5, 1.0)
PAPER = Paper(
    title="Escaping Plato's Cave (3D and text), SITTA, and the shift of means between modalities",
    numbers=(63, 72, 121),
    row="71",
    status="M",
    formula="Canonical correlations give the directions in which the spaces agree, scaled by how much; beside the best rotation of "
    "the whole spaces (Procrustes) and the least-squares map (ridge).",
    expected="a rotated copy is found to 1e-5; R@1 through the subspace at least 10 points above the whole spaces' Procrustes and "
    "ridge, which must fail; a shift of means leaves no gap between centroids and lifts a moved classifier by at least 10 points.",
)


def found_at_1(query: np.ndarray, items: np.ndarray) -> float:
    """Recall at 1 by cosine of row i of one in row i of the other."""
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    number = np.arange(len(items))
    return float((ranked(unit(query), unit(items), number, number).first == 0).mean())


def subspaces(seed: int) -> dict[str, Any]:
    """Recall at 1 of each map, by the standard deviation of what each space has of its own; noise of 0.3 on what they share."""
    out: dict[str, Any] = {}
    for nuisance in NUISANCE:
        rng = np.random.default_rng([seed, int(10 * nuisance)])
        mixers = [rng.normal(size=(SHARED + OWN, SHARED + OWN)) for _ in range(2)]

        def drawn(rows: int) -> list[np.ndarray]:
            z = rng.normal(size=(rows, SHARED))  # noqa: B023
            own = lambda: np.concatenate([z + 0.3 * rng.normal(size=z.shape), nuisance * rng.normal(size=(rows, OWN))], 1)  # noqa: B023  # fmt: skip
            return [own() @ mixer for mixer in mixers]  # noqa: B023

        (x, y), (query, items) = drawn(PAIRS), drawn(ASKED)
        to_x, to_y = maps.canonical(x, y, SHARED)
        out[f"own {nuisance}"] = {
            "subspace": found_at_1(to_x(query), to_y(items)),
            "Procrustes": found_at_1(maps.procrustes(x, y)(query), items),
            "ridge": found_at_1(maps.ridge(x, y)(query), items),
        }
    return out


def rotated(seed: int) -> dict[str, Any]:
    """The largest deviation of a rotated copy that was found again from 200 pairs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(PAIRS, 32))
    turn = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    return {"rotation": {"error": float(np.abs(maps.procrustes(x, x @ turn)(x) - x @ turn).max())}}


def shifted(seed: int) -> dict[str, Any]:
    """A classifier of ten classes, learned of one modality's vectors, used on another's in another cone."""
    rng = np.random.default_rng(seed)
    centres, cones = rng.normal(size=(10, 32)), 2.0 * rng.normal(size=(2, 32))
    label = rng.integers(0, 10, (2, 2000))
    text, image = (centres[label[i]] + rng.normal(size=(2000, 32)) + cones[i] for i in (0, 1))
    moved = maps.mean_shift(image, text)(image)
    classifier = LogisticRegression(max_iter=500).fit(text, label[0])
    return {
        "shift": {
            "gap": float(np.linalg.norm(moved.mean(0) - text.mean(0))),
            "accuracy with it": float(classifier.score(moved, label[1])),
            "accuracy without": float(classifier.score(image, label[1])),
        }
    }


def arms() -> dict[str, Any]:
    """None is trained by gradient."""
    return {"rotated": rotated, "subspaces": subspaces, "shifted": shifted}


def verdict(found: Found) -> Verdict:
    """See `PAPER.expected`."""
    shift = {k: mean(found, "shifted", "shift", k) for k in found["shifted"][0]["shift"]}
    r1 = {f"own {n}": {w: mean(found, "subspaces", f"own {n}", w) for w in ("subspace", "Procrustes", "ridge")} for n in NUISANCE}  # fmt: skip
    return Verdict(
        clauses={
            "a rotation is found to 1e-5": max(values(found, "rotated", "rotation", "error"))
            <= 1e-5,
            "a shift of means leaves no gap": shift["gap"] <= 1e-6,
            "a shift of means: 10 points more": shift["accuracy with it"]
            >= shift["accuracy without"] + 0.10,
        }
        | {
            f"{n}: the subspace 10 points above both": w["subspace"]
            >= max(w["Procrustes"], w["ridge"]) + 0.10
            for n, w in r1.items()
        },
        figures={f"{n}, {w}": spread(values(found, "subspaces", n, w)) for n in r1 for w in r1[n]}
        | {k: spread(values(found, "shifted", "shift", k)) for k in shift if k != "gap"},
    )
