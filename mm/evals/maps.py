"""Maps between two frozen embedding spaces, in closed form from a few pairs. All is float64 NumPy.

x float[n, D] and y float[n, E] are rows that belong together; a map takes any rows of x's space.
"""

from collections.abc import Callable

import numpy as np

Map = Callable[[np.ndarray], np.ndarray]


def procrustes(x: np.ndarray, y: np.ndarray) -> Map:
    """The rotation (and shift) that brings x nearest to y; D = E.

    Source: Schoenemann 1966.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    u, _, vt = np.linalg.svd((x - mean_x).T @ (y - mean_y))
    return lambda rows: (rows - mean_x) @ (u @ vt) + mean_y


def ridge(x: np.ndarray, y: np.ndarray, strength: float = 1.0) -> Map:
    """The affine map of least squares, shrunk towards the mean of y.

    Source: Hoerl and Kennard 1970; Merullo et al. 2023 (LiMBeR), Paischer et al. 2023 (SITTA) between image and text.
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    gram = centred.T @ centred + strength * np.eye(x.shape[1])
    weight = np.linalg.solve(gram, centred.T @ (y - mean_y))
    return lambda rows: (rows - mean_x) @ weight + mean_y


def canonical(x: np.ndarray, y: np.ndarray, k: int, strength: float = 1e-3) -> tuple[Map, Map]:
    """Maps of both spaces into the k directions in which they agree most, each scaled by its correlation.

    Args:
      strength: added to the covariances' diagonals, as a share of their mean.

    Source: Hotelling 1936 (canonical correlations); Hadgi et al. 2025 (3D and text: subspace first, then the map).
    """
    mean_x, mean_y = x.mean(0), y.mean(0)
    a, b = x - mean_x, y - mean_y
    root_x, root_y = inverse_root(a, strength), inverse_root(b, strength)
    u, correlation, vt = np.linalg.svd(root_x @ (a.T @ b / len(a)) @ root_y, full_matrices=False)
    by = np.sqrt(np.clip(correlation[:k], 0, 1))
    to_x, to_y = root_x @ u[:, :k] * by, root_y @ vt[:k].T * by
    return (lambda rows: (rows - mean_x) @ to_x), (lambda rows: (rows - mean_y) @ to_y)


def mean_shift(x: np.ndarray, y: np.ndarray) -> Map:
    """Moves x's space so that its mean is y's; needs no pairs. Source: Liang et al. 2022 (modality gap)."""
    shift = y.mean(0) - x.mean(0)
    return lambda rows: rows + shift


def inverse_root(centred: np.ndarray, strength: float = 0.0) -> np.ndarray:
    """The covariance's power -1/2; `strength` is added to its diagonal, as a share of the mean there."""
    covariance = centred.T @ centred / len(centred)
    covariance += strength * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    return vectors / np.sqrt(values) @ vectors.T
