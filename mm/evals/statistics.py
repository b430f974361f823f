"""The formulas of evaluation: intervals that know their clusters, and distances between sets of
points.

Points are rows of float64[n, d]; distances are Euclidean and computed pair by pair (no expansion of
the square), so that identical points are at distance exactly 0. NumPy and SciPy only.
"""

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist, pdist

CHUNK = 1024  # rows of a distance matrix at a time: 1024 x 10,000 float64 are 80 MB


def _clusters(values: np.ndarray, cluster: np.ndarray) -> tuple[float, int, float]:
    """Mean, number of clusters, and the cluster-robust variance of the mean (linearised ratio)."""
    values = np.asarray(values, np.float64)
    _, index = np.unique(cluster, return_inverse=True)
    count = int(index.max()) + 1
    mean = float(values.mean())
    residuals = np.bincount(index, values - mean, count)
    variance = count / max(count - 1, 1) * float(residuals @ residuals) / len(values) ** 2
    return mean, count, variance


def proportion_interval(
    correct: np.ndarray, cluster: np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
    """Interval of an accuracy whose trials come in clusters (several trials per test item).

    The exact binomial interval at the effective number of trials: what the spread between clusters
    says they are worth, never more than there are. When all trials agree, the spread says nothing,
    and each cluster counts as one trial.

    Args:
      correct: bool[n].
      cluster: int[n], equal for trials of one item.

    Returns:
      (low, high).

    Source: Korn and Graubard 1998, Survey Methodology 24(2), with Clopper and Pearson 1934.
    """
    p, clusters, variance = _clusters(correct, cluster)
    n = len(correct)
    if p in (0.0, 1.0) or clusters == 1:
        effective = float(clusters)
    else:
        effective = p * (1 - p) / variance if variance > 0 else float(n)
        t_n, t_clusters = stats.t.ppf(0.5 + level / 2, [n - 1, clusters - 1])
        effective = min(effective * (t_n / t_clusters) ** 2, float(n))
    hits, misses = p * effective, (1 - p) * effective
    tail = (1 - level) / 2
    low = stats.beta.ppf(tail, hits, misses + 1) if hits > 0 else 0.0
    high = stats.beta.ppf(1 - tail, hits + 1, misses) if misses > 0 else 1.0
    return float(low), float(high)


def mean_interval(
    values: np.ndarray, cluster: np.ndarray, *, level: float = 0.95
) -> tuple[float, float]:
    """Cluster-robust t interval of a mean; (-inf, inf) for a single cluster.

    Args:
      values: float[n].
      cluster: int[n], equal for values of one item.
    """
    mean, clusters, variance = _clusters(values, cluster)
    if clusters == 1:
        return -np.inf, np.inf
    half = float(stats.t.ppf(0.5 + level / 2, clusters - 1)) * variance**0.5
    return mean - half, mean + half


def accuracy(correct: np.ndarray, cluster: np.ndarray) -> dict[str, float | list[float]]:
    """{accuracy, interval}, ready for a results file."""
    low, high = proportion_interval(correct, cluster)
    return {"accuracy": float(np.mean(correct)), "interval": [low, high]}


def nearest(points: np.ndarray, among: np.ndarray, k: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of `among`: distances float64[n, k] ascending, and indices int64[n, k]."""
    distances, indices = [], []
    for start in range(0, len(points), CHUNK):
        d = cdist(points[start : start + CHUNK], among)
        index = np.argpartition(d, k - 1, axis=1)[:, :k] if k < len(among) else np.argsort(d, 1)
        part = np.take_along_axis(d, index, 1)
        order = np.argsort(part, axis=1, kind="stable")
        distances.append(np.take_along_axis(part, order, 1))
        indices.append(np.take_along_axis(index, order, 1))
    return np.concatenate(distances), np.concatenate(indices)


def radii(real: np.ndarray, k: int = 5) -> np.ndarray:
    """Distance of each real point to its k-th nearest other real point, float64[n]."""
    k = min(k, len(real) - 1)
    return nearest(real, real, k + 1)[0][:, k]  # the nearest of all is the point itself


def coverage_density(real: np.ndarray, fake: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Coverage: the share of real points with a fake one in their k-nearest-neighbour ball; and
    density.

    Coverage is 1 - (1/2)^k or so for two samples of one law, and falls when whole regions of the
    real points are never produced; density exceeds 1 when fakes crowd where real points are dense.

    Args:
      real: float64[n, d], n > 1.
      fake: float64[m, d].

    Source: Naeem et al. 2020, "Reliable Fidelity and Diversity Metrics", equations 3 and 4 (with <=
      for <, so that a real point that occurs more than k times can be covered).
    """
    radius = radii(real, k)
    covered, inside = np.zeros(len(real), bool), 0
    for start in range(0, len(fake), CHUNK):
        hit = cdist(real, fake[start : start + CHUNK]) <= radius[:, None]
        covered |= hit.any(1)
        inside += int(hit.sum())
    return float(covered.mean()), inside / (min(k, len(real) - 1) * len(fake))


def _sqrt_psd(matrix: np.ndarray) -> np.ndarray:
    """Symmetric square root of a positive semi-definite matrix; rounding below zero is cut off."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of points.

    Biased upwards in small samples: compare only figures of equal sample sizes.

    Args:
      a: float64[n, d].
      b: float64[m, d].

    Source: Dowson and Landau 1982; Heusel et al. 2017. The trace of (A B)^(1/2) is taken from the
      eigenvalues of A^(1/2) B A^(1/2), which is symmetric, so that nothing turns complex.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    root = _sqrt_psd(cov_a)
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ cov_b @ root), 0)).sum()
    shift = a.mean(0) - b.mean(0)
    return float(max(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross, 0.0))


def diversity(points: np.ndarray, condition: np.ndarray, at_most: int = 400) -> float:
    """Mean distance between two points of one condition, averaged over conditions; nan if none has
    two.

    One prototype per condition gives 0.

    Args:
      points: float64[n, d].
      condition: int[n].
      at_most: points used per condition (the first ones).
    """
    spread = []
    for c in np.unique(condition):
        own = points[condition == c][:at_most]
        if len(own) > 1:
            spread.append(pdist(own).mean())
    return float(np.mean(spread)) if spread else float("nan")


def knn_classify(
    points: np.ndarray, train: np.ndarray, labels: np.ndarray, k: int = 5
) -> np.ndarray:
    """Majority label of the k nearest training points (ties: the smallest label), int64[n]."""
    classes, coded = np.unique(labels, return_inverse=True)
    votes = coded[nearest(points, train, min(k, len(train)))[1]]
    counts = (votes[:, :, None] == np.arange(len(classes))).sum(1)
    return classes[counts.argmax(1)]
