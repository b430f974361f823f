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


def bezier(points_mbe: jax.Array, share: jax.Array) -> jax.Array:
    """One vector of M modalities' unit [M, B, E] that stays on the sphere: neighbours are mixed until one is left; unit [B, E].

    Args:
      share: 0 = the first modality, 1 = the last.

    Source: Shoemake 1985 (De Casteljau's scheme on arcs); Zhou et al. 2025 (CM3: fusion of modalities).
    """
    points = points_mbe
    while len(points) > 1:
        points = slerp(points[:-1], points[1:], share)
    return points[0]


def within(
    x: jax.Array, y: jax.Array, scale: jax.Array, other: jax.Array, share: jax.Array,
    there: jax.Array,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """The pair loss of x mixed with other rows of x, whose positives are both rows' y in the shares of the mixture.

    Args:
      x, y: unit [B, E]. other: int[B]. share: float[B], of a row itself. there: bool[B], pairs that exist.

    Source: Oh et al. 2023 (m3-mix: V-mix, and with the modalities exchanged L-mix).
    """
    mixed = slerp(x, x[other], 1 - share)
    target = mixed_targets(jnp.eye(len(x)), other, share)
    return pair_loss(scale * mixed @ y.T, target, there & there[other], there)


def geodesic_negatives(
    x: jax.Array, y: jax.Array, scale: jax.Array, share: jax.Array, there: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The pair loss whose negatives are mixtures of the other examples' two modalities: harder than either.

    Args:
      x, y: unit [B, E]. share: float[B], of y in each mixture. there: bool[B], pairs that exist; None = all.

    Source: Oh et al. 2023 (m2-mix).
    """
    mixed = slerp(x, y, share)
    own = jnp.eye(len(x), dtype=bool)
    pairs = (x * y).sum(1)[:, None]
    forward = scale * jnp.where(own, pairs, x @ mixed.T)
    backward = scale * jnp.where(own, pairs, y @ mixed.T)
    there = jnp.ones(len(x), bool) if there is None else there
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
