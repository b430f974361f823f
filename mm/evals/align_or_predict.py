"""Two feature files: do aligning them and predicting one from the other find the same directions?

    python -m mm.evals.align_or_predict X.npy Y.npy --k 3

Aligning (contrast) finds the directions of x that correlate most with y; predicting (masked generation, regression) those that
explain most of y. Where what is shared is weak but clean, or strong but drowned in other variance, only one of the two finds
it; their sum with one fixed weight finds it in both cases. Closed forms for linear encoders, NumPy float64.
"""

import argparse
import dataclasses
import sys

import numpy as np
from etils.epath import Path

from mm.errors import Parser, UserError, exit_code
from mm.evals.maps import inverse_root

WEIGHT = 0.5
"""Of prediction beside alignment."""


@dataclasses.dataclass(frozen=True, slots=True)
class Directions:
    """Attributes:
    align, predict, joint: float[D, k], orthonormal bases of what a linear encoder of x keeps.
    correlations: of all directions that align, falling. explained: of all that predict, falling.
    """

    align: np.ndarray
    predict: np.ndarray
    joint: np.ndarray
    correlations: np.ndarray
    explained: np.ndarray


def directions(x: np.ndarray, y: np.ndarray, k: int, weight: float = WEIGHT) -> Directions:
    """The k directions of x that each way of learning keeps.

    In whitened x, aligning keeps the left singular vectors of Sxx^-1/2 Sxy Syy^-1/2, predicting those of Sxx^-1/2 Sxy,
    both together the eigenvectors of the sum of their squares, the second times `weight`. y is scaled, all features by one
    number, so that their mean variance is 1.

    Source: canonical correlations and reduced-rank regression; that the two differ, arXiv 2606.11190.
    """
    a, b = x - x.mean(0), y - y.mean(0)
    b = b / np.sqrt(np.square(b).mean())
    whiten = inverse_root(a)
    predict = whiten @ (a.T @ b / len(a))
    align = predict @ inverse_root(b)
    both, *_ = np.linalg.svd(align @ align.T + weight * predict @ predict.T)
    (u_align, correlations, _), (u_predict, explained, _) = (
        np.linalg.svd(align),
        np.linalg.svd(predict),
    )
    kept = lambda u: np.linalg.qr(whiten @ u[:, :k])[0]
    return Directions(kept(u_align), kept(u_predict), kept(both), correlations, explained)


def overlap(u: np.ndarray, v: np.ndarray) -> float:
    """Of two subspaces with orthonormal bases [D, k]: the mean squared cosine of their angles, 1 = the same."""
    return float(np.square(u.T @ v).sum() / u.shape[1])


def _read(name: str) -> np.ndarray:
    path = Path(name)
    try:
        with path.open("rb") as file:
            rows = np.load(file, allow_pickle=False)
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read as a .npy file ({e}); give float[n, D]") from e
    if rows.ndim != 2 or rows.dtype.kind not in "fiu" or not np.isfinite(rows).all():
        raise UserError(f"{path}: {rows.dtype}{list(rows.shape)}: expected finite numbers [n, D]")
    return rows.astype(np.float64)


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m mm.evals.align_or_predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("x")
    parser.add_argument("y")
    parser.add_argument("--k", type=int, default=8, help="directions that an encoder keeps")
    parser.add_argument(
        "--weight", type=float, default=WEIGHT, help="of prediction beside alignment"
    )
    options = parser.parse_args(argv)
    x, y = _read(options.x), _read(options.y)
    if len(x) != len(y):
        raise UserError(
            f"{options.x}, {options.y}: {len(x)} and {len(y)} rows; row i of both must be one example"
        )
    k = options.k
    if not 1 <= k < min(x.shape[1], y.shape[1], len(x)):
        raise UserError(f"--k={k}: must be 1 .. {min(x.shape[1], y.shape[1], len(x)) - 1}")
    found = directions(x, y, k, options.weight)
    for name, values in (("align", found.correlations), ("predict", found.explained)):
        print(f"{name}: {', '.join(f'{v:.3f}' for v in values[:k])} | next {values[k]:.3f}")
    same = overlap(found.align, found.predict)
    print(
        f"the {k} directions of both: overlap {same:.3f} (1 = the same, {k / x.shape[1]:.3f} by chance)"
    )
    for name, own in (("align", found.align), ("predict", found.predict)):
        print(
            f"with both losses, prediction weighted {options.weight:g}: {overlap(found.joint, own):.3f} of what {name} keeps"
        )
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
