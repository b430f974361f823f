"""Rows made a little different, which mean the same: for objectives that embed rows anew (`forms_with_needs.Augmented`)."""

import jax
import jax.numpy as jnp


def moved(key: jax.Array, pictures: jax.Array, shift: float = 0.1, zoom: float = 0.15) -> jax.Array:
    """Pictures shifted and stretched, each axis on its own: their dtype, [B, H, W, ...]; from outside comes the border.

    Linear interpolation of one axis after the other, as products of matrices.

    Args:
      pictures: uint8 or float[B, H, W, ...]. shift: at most, of the side. zoom: at most, of the logarithm.
    """
    x = pictures.astype(jnp.float32)
    for axis, axis_key in zip((1, 2), jax.random.split(key), strict=True):
        side, size = x.shape[axis], (len(x), 1)
        keys = jax.random.split(axis_key)
        by = side * jax.random.uniform(keys[0], size, minval=-shift, maxval=shift)
        stretch = jnp.exp(jax.random.uniform(keys[1], size, minval=-zoom, maxval=zoom))
        middle = (side - 1) / 2
        origin = jnp.clip((jnp.arange(side) - middle) * stretch + middle + by, 0, side - 1)
        weight = jax.nn.relu(1 - jnp.abs(origin[..., None] - jnp.arange(side)))  # [B, to, from]
        last = jnp.einsum("bij,b...j->b...i", weight, jnp.moveaxis(x, axis, -1))
        x = jnp.moveaxis(last, -1, axis)
    return x.round().astype(jnp.uint8) if pictures.dtype == jnp.uint8 else x


def forgotten(key: jax.Array, ids: jax.Array, share: float = 0.1) -> jax.Array:
    """Ids int[B, N] of which so many, drawn one by one, are 0 = none."""
    return jnp.where(jax.random.bernoulli(key, share, ids.shape), 0, ids)
