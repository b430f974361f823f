"""How alike two things are: of pooled vectors, of sets of tokens, of words, of codes. Scores [A, B] for the pair loss."""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from mm.models.layers import unit
from mm.objectives.contrastive.pair import LOWEST, nonzero

Pool = Literal["max", "softmax", "sum"]


def late_interaction(
    a_and: jax.Array, b_bmd: jax.Array, there_an: jax.Array, there_bm: jax.Array,
    pool: Pool = "max", mean: bool = True, temperature: float = 0.1,
) -> jax.Array:  # fmt: skip
    """Each token of a finds its like among the tokens of b; what it found is averaged (or added up): float32[A, B].

    One b after the other, so that no array [A, B, n, m] exists, in the gradient neither. What has no token scores 0.

    Args:
      a_and: unit tokens [A, n, d]. b_bmd: [B, m, d]. there_an, there_bm: bool.
      pool: over b's tokens: the best one, their softmax-weighted mean (at `temperature`), or their sum.

    Source: Khattab and Zaharia 2020 (ColBERT: max, sum); Yao et al. 2022 (FILIP: max, mean); Cheng et al. 2023
      (CiCo: softmax).
    """
    flat = a_and.reshape(-1, a_and.shape[-1])
    number = nonzero(there_an.sum(1).astype(jnp.float32))

    @jax.checkpoint
    def score(b: tuple[jax.Array, jax.Array]) -> jax.Array:
        tokens, there = b
        products = (flat @ tokens.T).astype(jnp.float32)
        found = _pooled(products, there, pool, temperature).reshape(there_an.shape)
        total = jnp.where(there_an & there.any(), found, 0).sum(1)
        return total / number if mean else total

    return jax.lax.map(score, (b_bmd, there_bm)).T


def _pooled(products: jax.Array, there: jax.Array, pool: str, temperature: float) -> jax.Array:
    """Over the last axis, of what is there."""
    if pool == "max":
        return jnp.where(there, products, LOWEST).max(-1)
    if pool == "sum":
        return jnp.where(there, products, 0).sum(-1)
    weight = jax.nn.softmax(jnp.where(there, products / temperature, LOWEST), axis=-1)
    return (weight * jnp.where(there, products, 0)).sum(-1)


def conditioned_pool(
    query_ad: jax.Array, tokens_bmd: jax.Array, there_bm: jax.Array, temperature: float
) -> jax.Array:
    """Each query pools the tokens of every b by its own attention: float32[A, B, d], to be compared with the query.

    Source: Gorti et al. 2022 (X-Pool), without projections; Ma et al. 2022 (X-CLIP: parameter-free).
    """
    scores = jnp.einsum("ad,bmd->abm", query_ad, tokens_bmd).astype(jnp.float32) / temperature
    weight = jax.nn.softmax(jnp.where(there_bm, scores, LOWEST), axis=-1)
    weight = jnp.where(there_bm, weight, 0)
    return jnp.einsum("abm,bmd->abd", weight, tokens_bmd.astype(jnp.float32))


def conditioned_scores(
    query_ad: jax.Array, streams: Sequence[tuple[jax.Array, jax.Array]], temperature: float
) -> jax.Array:
    """Cosine of each query with the sum of what it pools from every stream of b: float32[A, B].

    A high temperature gives the score of mean-pooled streams. What has no token in any stream scores 0.

    Args:
      query_ad: unit. streams: (tokens [B, n, d], which exist bool[B, n]) of frames, of sounds, ....

    Source: Gorti et al. 2022 (X-Pool); Ibrahimi et al. 2023 (TEFAL: a stream of sound beside the frames).
    """
    pooled = sum(
        (conditioned_pool(query_ad, tokens, there, temperature) for tokens, there in streams),
        jnp.zeros(()),
    )
    return jnp.einsum("ad,abd->ab", query_ad.astype(jnp.float32), unit(pooled))


def lexical(logits_bnv: jax.Array, there_bn: jax.Array) -> jax.Array:
    """A vector as large as the vocabulary, sparse and not negative: float32[B, V] = max over tokens of log(1 + relu).

    Source: Formal et al. 2021 (SPLADE v2).
    """
    weight = jnp.log1p(jax.nn.relu(logits_bnv.astype(jnp.float32)))
    return jnp.where(there_bn[..., None], weight, 0).max(1)


def flops_penalty(weight_bv: jax.Array) -> jax.Array:
    """Sum over words of their squared mean weight: what an inverted index pays for them.

    Source: Paria et al. 2020; Formal et al. 2021.
    """
    return jnp.square(jnp.abs(weight_bv).mean(0)).sum()


def code_weights(
    tokens_bnd: jax.Array, there_bn: jax.Array, codes_kd: jax.Array, sparse: bool = True
) -> jax.Array:
    """How much of each shared code a set of tokens has: float32[B, K], rows sum to 1.

    The best token of each code, then sparsemax (or softmax) over codes. Tokens that are not there have no say.

    Source: Chen et al. 2023 (FDT).
    """
    products = jnp.einsum("bnd,kd->bnk", tokens_bnd, codes_kd).astype(jnp.float32)
    best = jnp.where(there_bn[..., None], products, LOWEST).max(1)
    best = jnp.where(there_bn.any(1, keepdims=True), best, 0)
    best = best / codes_kd.shape[-1] ** 0.5
    return sparsemax(best) if sparse else jax.nn.softmax(best, axis=-1)


def sparsemax(x: jax.Array) -> jax.Array:
    """The point of the simplex nearest to each row of `x`: like softmax, with exact zeros.

    Source: Martins and Astudillo 2016.
    """
    falling = -jnp.sort(-x, axis=-1)
    index = jnp.arange(1, x.shape[-1] + 1)
    sums = falling.cumsum(-1)
    support = (1 + index * falling > sums).sum(-1, keepdims=True)
    threshold = (jnp.take_along_axis(sums, support - 1, axis=-1) - 1) / support
    return jnp.maximum(x - threshold, 0)
