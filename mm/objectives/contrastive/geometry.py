"""The shape of embedding spaces: terms that mould it, and the card that describes it.

x and y are unit rows float[B, E], row by row of one example. Terms are float32 scalars to be minimised; where they take `there`,
bool[B], they are means over the rows that exist, 0 of none.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mm.objectives.contrastive.pair import log_sum


def alignment(x: jax.Array, y: jax.Array, there: jax.Array | None = None) -> jax.Array:
    """Mean squared distance of pairs. Source: Wang and Isola 2020 (alpha = 2)."""
    squared = jnp.square((x - y).astype(jnp.float32)).sum(1)
    if there is None:
        return squared.mean()
    return jnp.where(there, squared, 0).sum() / jnp.maximum(there.sum(), 1)


def uniformity(x: jax.Array, there: jax.Array | None = None) -> jax.Array:
    """Log mean over pairs of rows of exp(-2 distance^2): falls to -4 as rows spread over many dimensions.

    Source: Wang and Isola 2020 (t = 2).
    """
    return cross_uniformity(x, x, there)


def cross_uniformity(x: jax.Array, y: jax.Array, there: jax.Array | None = None) -> jax.Array:
    """As `uniformity`, between two modalities; true pairs are left out.

    Source: Fahim et al. 2024 (contrastive gap), whose loss is CLIP's and these three terms.
    """
    there = jnp.ones(len(x), bool) if there is None else there
    products = x.astype(jnp.float32) @ y.astype(jnp.float32).T
    exponents = (4 * products - 4).reshape(1, -1)  # -2 (2 - 2 cos)
    others = there[:, None] & there & ~jnp.eye(len(x), dtype=bool)
    return log_sum(exponents, others.reshape(1, -1))[0] - jnp.log(jnp.maximum(others.sum(), 1))


def to_random_prior(x: jax.Array, y: jax.Array, key: jax.Array) -> jax.Array:
    """Both modalities are drawn to one shared random point per example, which leaves no room between them.

    Source: Yamaguchi et al. 2025 (CLIP-Refine: random feature alignment), with points on the sphere.
    """
    point = jax.random.normal(key, x.shape)
    point /= jnp.linalg.norm(point, axis=1, keepdims=True)
    return (alignment(x, point) + alignment(y, point)) / 2


def structure(
    x: jax.Array, given: jax.Array, temperature: float = 0.1, levels: int = 1
) -> jax.Array:
    """How far neighbourhoods of x are from those of the features `given` that it was made of.

    Jensen-Shannon divergence of the rows' softmax over similarities; level l compares walks of l steps.

    Source: Groeger et al. 2025 (STRUCTURE), without its centring.
    """
    here, there = _walk(x, temperature), _walk(given, temperature)
    total, p, q = jnp.zeros(()), here, there
    for _ in range(levels):
        middle = (p + q) / 2
        total += (_kl(p, middle) + _kl(q, middle)).mean() / 2
        p, q = p @ here, q @ there
    return total / levels


def _walk(x: jax.Array, temperature: float) -> jax.Array:
    x = x.astype(jnp.float32)
    x /= jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-6)
    return jax.nn.softmax(x @ x.T / temperature, axis=1)


def _kl(p: jax.Array, q: jax.Array) -> jax.Array:
    return jax.scipy.special.rel_entr(p, q).sum(1)


def card(x: np.ndarray, y: np.ndarray, k: int = 10) -> dict[str, float]:
    """What two sets of embeddings look like, in float64; rows i belong together.

    gap: distance of the means. separability: share told apart by the hyperplane half way between them.
    uniformity (mean of both), cross_uniformity, effective_rank of all rows.
    skewness: of how often a row of y is among the k nearest of an x (hubs). mrv: mean over examples of the variance
    of the ranks of their partners in both directions. asymmetry: recall at 1 from x to y less that from y to x.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    scores = x @ y.T
    forward, backward = ranks(scores), ranks(scores.T)
    return {
        "gap": float(np.linalg.norm(x.mean(0) - y.mean(0))),
        "separability": separability(x, y),
        "uniformity": (log_mean_kernel(x, x) + log_mean_kernel(y, y)) / 2,
        "cross_uniformity": log_mean_kernel(x, y),
        "effective_rank": effective_rank(np.concatenate([x, y])),
        "skewness": skewness(chosen(scores, k)),
        "mrv": float(np.var(np.stack([forward, backward]), axis=0).mean()),
        "asymmetry": float((forward == 0).mean() - (backward == 0).mean()),
    }


def ranks(scores: np.ndarray) -> np.ndarray:
    """Of each row its own column's place among all columns, 0 = best; equals rank before it. int[B]."""
    own = np.diag(scores)[:, None]
    return (scores > own).sum(1) + (scores == own).sum(1) - 1


def log_mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
    """`cross_uniformity` in float64."""
    kernel = np.exp(4 * x @ y.T - 4)
    off = ~np.eye(len(x), dtype=bool)
    return float(np.log(kernel[off].mean()))


def separability(x: np.ndarray, y: np.ndarray) -> float:
    """Share of rows on their own side of the plane half way between the means."""
    normal, middle = x.mean(0) - y.mean(0), (x.mean(0) + y.mean(0)) / 2
    right = ((x - middle) @ normal > 0).mean() + ((y - middle) @ normal < 0).mean()
    return float(right / 2)


def effective_rank(x: np.ndarray) -> float:
    """exp of the entropy of the covariance's eigenvalues. Source: Roy and Vetterli 2007, of singular values there."""
    values = np.square(np.linalg.svd(x - x.mean(0), compute_uv=False))
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def chosen(scores: np.ndarray, k: int = 10) -> np.ndarray:
    """How many rows have a column among their k best: int[columns]."""
    k = min(k, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.bincount(best.ravel(), minlength=scores.shape[1])


def skewness(chosen: np.ndarray) -> float:
    """Of how many queries have each item among their best; 0 = no hubs. Source: Radovanovic et al. 2010."""
    count = chosen.astype(np.float64)
    return float(((count - count.mean()) ** 3).mean() / max(count.std() ** 3, 1e-12))
