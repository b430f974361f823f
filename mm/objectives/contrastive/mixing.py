"""Mixing: of embeddings along the sphere, of inputs, of targets."""

import jax
import jax.numpy as jnp

from mm.models.layers import unit
from mm.objectives.contrastive.pair import pair_loss

NEAR = 1e-3
"""sin(angle) below which the arc is a straight line."""


def slerp(x: jax.Array, y: jax.Array, share: jax.Array) -> jax.Array:
    """The point at `share` (0 = x, 1 = y) of the arc between unit vectors x and y [..., E]; unit, float32.

    Source: Shoemake 1985. Of vectors that nearly coincide, or are opposite, the straight line, scaled to length 1.
    """
    x, y = x.astype(jnp.float32), y.astype(jnp.float32)
    share = jnp.asarray(share)[..., None] if jnp.ndim(share) else share
    cosine = (x * y).sum(-1, keepdims=True)
    far = jnp.abs(cosine) < 1 - NEAR**2 / 2
    angle = jnp.arccos(jnp.where(far, cosine, 0.0))
    sine = jnp.sin(angle)
    arc = (jnp.sin((1 - share) * angle) * x + jnp.sin(share * angle) * y) / sine
    return unit(jnp.where(far, arc, (1 - share) * x + share * y))


def geodesic_negatives(
    x: jax.Array, y: jax.Array, scale: jax.Array, share: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The pair loss whose negatives are mixtures of the other examples' two modalities: harder than either.

    Args:
      x, y: unit [B, E]. share: float[B], of y in each mixture.

    Source: Oh et al. 2023 (m2-mix).
    """
    mixed = slerp(x, y, share)
    own = jnp.eye(len(x), dtype=bool)
    pairs = (x * y).sum(1)[:, None]
    forward = scale * jnp.where(own, pairs, x @ mixed.T)
    backward = scale * jnp.where(own, pairs, y @ mixed.T)
    there = jnp.ones(len(x), bool)
    return pair_loss(forward, own, there, there, logits_ba=backward)


def mixed_rows(
    key: jax.Array, rows: jax.Array, alpha: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each row mixed with another one of the batch: (mixed rows, the other's index int32[B], the share kept float[B]).

    Args:
      rows: [B, ...]. alpha: of Beta(alpha, alpha), from which shares are drawn; the larger of share and 1 - share stays.

    Source: Zhang et al. 2018 (mixup).
    """
    share_key, order_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha, (len(rows),))
    share = jnp.maximum(share, 1 - share)
    other = jax.random.permutation(order_key, len(rows))
    wide = share.reshape(-1, *[1] * (rows.ndim - 1))
    return wide * rows + (1 - wide) * rows[other], other, share


def mixed_targets(target: jax.Array, other: jax.Array, share: jax.Array) -> jax.Array:
    """What mixed rows are positives of: [B, B], the two rows' targets in the shares of the mixture.

    Source: Kumar et al. 2024 (M3CoL).
    """
    return share[:, None] * target + (1 - share)[:, None] * target[other]
