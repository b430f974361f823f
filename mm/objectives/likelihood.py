"""What a masked predictor knows of whole sequences: bounds of -log p in nats, from random masks.

A predictor is asked for hidden tokens given the others. Read one token at a time in a random order it is a generative model;
its negative log-likelihood, averaged over orders, bounds that of the mixture of all orders from above. Both estimators below
have it as their mean; an unweighted schedule of MaskGIT's kind has not.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Masks = tuple[jax.Array, jax.Array]
"""bool[B, L], which tokens are hidden, and float32[B], what a hidden token's cross-entropy counts."""


def uniform_count(key: jax.Array, rows: int, length: int) -> Masks:
    """k hidden tokens, k uniform in 1 .. L, each counting L / k: the mean over hidden tokens, times L.

    Source: Uria et al. 2014 (order-agnostic NADE).
    """
    count_key, order_key = jax.random.split(key)
    count = jax.random.randint(count_key, (rows, 1), 1, length + 1)
    place = jnp.argsort(jax.random.uniform(order_key, (rows, length)), axis=1).argsort(axis=1)
    return place < count, (length / count[:, 0]).astype(jnp.float32)


def uniform_rate(key: jax.Array, rows: int, length: int, least: float = 1e-3) -> Masks:
    """Each token hidden with probability t, counting 1 / t; t in [least, 1], evenly spread over the batch.

    Source: Sahoo et al. 2024 (MDLM), Nie et al. 2025 (LLaDA); low-discrepancy t of Kingma et al. 2021.
    """
    shift_key, mask_key = jax.random.split(key)
    t = (jax.random.uniform(shift_key) + jnp.arange(rows) / rows) % 1
    t = jnp.maximum(t, least)
    return jax.random.uniform(mask_key, (rows, length)) < t[:, None], 1 / t


def nats(
    log_p_of: Callable[[jax.Array, jax.Array], jax.Array], ids: jax.Array, masks: Masks
) -> jax.Array:
    """An estimate of the bound of each sequence's -log p: float32[B]. Their mean is the batch's.

    Args:
      log_p_of: (ids int[B, L], hidden bool[B, L]) -> log-probabilities [B, L, V]; what is hidden must not be looked at.
      ids: int[B, L]. masks: of `uniform_count` or `uniform_rate`.
    """
    hidden, weight = masks
    log_p = log_p_of(ids, hidden).astype(jnp.float32)
    entropy = -jnp.take_along_axis(log_p, ids[..., None], axis=-1)[..., 0]
    return weight * jnp.where(hidden, entropy, 0).sum(1)
