"""Scores made better after training: against hubs, which are near to everything, and against the cost of exact scores.

Scores are float[queries, gallery], higher = more alike; a bank is a sample of queries (or of gallery items) that are not
the ones asked about. All is float64 NumPy; results rank a gallery per query and are not comparable between queries.
"""

import numpy as np
from scipy.special import logsumexp


def inverted_softmax(scores: np.ndarray, bank: np.ndarray, beta: float = 20.0) -> np.ndarray:
    """Each gallery item's score less (in logs) how much the bank [bank, gallery] likes it: beta s - lse(beta bank).

    Source: Smith et al. 2017; with a bank of training queries Bogolin et al. 2022 (QB-Norm).
    """
    return beta * scores - logsumexp(beta * bank, axis=0)


def dynamic(scores: np.ndarray, bank: np.ndarray, beta: float = 20.0, k: int = 1) -> np.ndarray:
    """As `inverted_softmax`, but only for queries whose best item is among the k best of some of the bank.

    Source: Bogolin et al. 2022 (QB-Norm, dynamic inverted softmax).
    """
    hubs = np.unique(np.argsort(-bank, axis=1)[:, :k])
    meets = np.isin(scores.argmax(1), hubs)
    return np.where(meets[:, None], inverted_softmax(scores, bank, beta), beta * scores)


def dual_bank(
    scores: np.ndarray, queries: np.ndarray, gallery: np.ndarray,
    beta_queries: float = 1 / 1.99, beta_gallery: float = 3.0,
) -> np.ndarray:  # fmt: skip
    """The product (a sum of logs) of two inverted softmaxes: by a bank of queries, and by one of gallery items.

    Args:
      queries, gallery: scores of the two banks with the gallery, [bank, gallery].

    Source: Wang et al. 2023 (DBNorm). Their released code takes the gallery's bank for the test scores as well, and
      changes its arguments in place: this is the formula.
    """
    by_queries = inverted_softmax(scores, queries, beta_queries)
    return by_queries + inverted_softmax(scores, gallery, beta_gallery)


def csls(scores: np.ndarray, bank: np.ndarray, k: int = 10) -> np.ndarray:
    """2 s less the mean of the k best scores of the query, and of the item among the bank's queries [bank, gallery].

    Source: Conneau et al. 2018 (cross-domain similarity local scaling).
    """
    best = lambda x, axis: np.sort(x, axis=axis).take(range(-min(k, x.shape[axis]), 0), axis=axis)
    of_query = best(scores, 1).mean(1, keepdims=True)
    return 2 * scores - of_query - best(bank, 0).mean(0)


def centred(x: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Rows less a mean that was found elsewhere, of length 1 again."""
    return _unit(x - mean)


def inverse_graph_convolution(
    gallery: np.ndarray, banks: tuple[np.ndarray, ...], rate: float = 1.0, k: int = 20
) -> np.ndarray:
    """Gallery embeddings moved away from their k nearest in every bank; unit rows.

    Args:
      gallery: unit [g, E]. banks: unit [b, E] each, of gallery items and of queries.

    Source: Jian and Wang 2023 (InvGC with its local adjacency). Their released code moves the gallery away from each
    bank by itself, and averages the unit rows.
    """
    moved = gallery.astype(np.float64)
    for bank in banks:
        near = gallery @ bank.T
        few = min(k, len(bank))
        index = np.argpartition(-near, few - 1, axis=1)[:, :few]
        weight = np.take_along_axis(near, index, axis=1)
        moved -= rate / few * np.einsum("gk,gke->ge", weight, bank[index])
    return _unit(moved)


def by_anchors(
    asked: np.ndarray, train: np.ndarray, anchors: np.ndarray, rcond: float = 1e-2
) -> np.ndarray:
    """Scores [queries, gallery] from exact ones with a few anchors alone: C U+ R, to pick what is scored exactly.

    Args:
      asked: exact scores of the queries with the anchors, [queries, anchors].
      train: exact scores of training queries with all, [train, gallery]. anchors: int[anchors], their columns.
      rcond: singular values of U below this share of the largest are noise.

    Source: Yadav et al. 2022 (ANNCUR).
    """
    return asked @ np.linalg.pinv(train[:, anchors], rcond=rcond) @ train


def rescored(estimate: np.ndarray, exact: np.ndarray, budget: int) -> np.ndarray:
    """The `budget` best columns of each row of the estimate, best first by the exact scores: int[queries, budget]."""
    picked = np.argpartition(-estimate, budget - 1, axis=1)[:, :budget]
    order = np.argsort(-np.take_along_axis(exact, picked, axis=1), axis=1, kind="stable")
    return np.take_along_axis(picked, order, axis=1)


def refined(
    query: np.ndarray, gallery: np.ndarray, other: np.ndarray, steps: int = 20, rate: float = 1.0,
    search: bool = True,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """A query moved until its softmax p over candidates is nearer to its consensus with another retriever's, m = (p + other) / 2.

    Gradient descent on KL(m || p), of both p; the step is halved until KL falls.

    Args:
      query: [E]. gallery: [g, E], candidates, already divided by the temperature. other: probabilities [g], above 0.
      search: False takes every step in full.

    Returns:
      (query [E], KL before and after each step [steps + 1]).

    Source: Uzan et al. 2025 (GQR), with a line search.
    """
    value, slope = _consensus(gallery @ query, other)
    trace = [value]
    for _ in range(steps):
        step = rate
        while True:
            moved = query - step * (slope @ gallery)
            new, new_slope = _consensus(gallery @ moved, other)
            if new <= value or not search:
                query, value, slope = moved, new, new_slope
                break
            step /= 2
            if step < 1e-12 * rate:
                break
        trace.append(value)
    return query, np.array(trace)


def _consensus(logits: np.ndarray, other: np.ndarray) -> tuple[float, np.ndarray]:
    """KL((p + other) / 2 || p), p = softmax(logits), and its gradient in the logits."""
    log_p = logits - logsumexp(logits)
    p = np.exp(log_p)
    middle = (p + other) / 2
    ratio = np.log(middle) - log_p
    return float(middle @ ratio), p - middle + p * (ratio - p @ ratio) / 2


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
