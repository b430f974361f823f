"""Diffusion, as a decoder needs it: noise that grows to nothing but noise, the velocity that is learned, and DDIM.

With t from 0 (clean) to 1 (noise), alpha = cos(pi t / 2) and sigma = sin(pi t / 2):

    x_t = alpha x + sigma noise        v = alpha noise - sigma x        x = alpha x_t - sigma v        noise = sigma x_t + alpha v

At t = 1 nothing of x is left (alpha is 0, not nearly), so what is sampled from noise begins where training has been.

Source: v: Salimans and Ho 2022, appendix D; zero terminal signal-to-noise ratio: Lin et al. 2023; DDIM: Song et al. 2020, equation 12
with eta 0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def rates(t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Alpha and sigma of times float32[...], exactly 0 and 1 at t = 1."""
    end = t >= 1
    return jnp.where(end, 0.0, jnp.cos(0.5 * jnp.pi * t)), jnp.where(end, 1.0, jnp.sin(0.5 * jnp.pi * t))  # fmt: skip


def noised(x: jax.Array, noise: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """x_t and the velocity there.

    Args:
      x, noise: float32[B, ...]. t: float32[B].
    """
    alpha, sigma = (r.reshape(-1, *[1] * (x.ndim - 1)) for r in rates(t))
    return alpha * x + sigma * noise, alpha * noise - sigma * x


def times(key: jax.Array, rows: int) -> jax.Array:
    """A time for each row, float32[rows]: uniform, one in each of `rows` equal parts, so that a batch sees all of them."""
    return (jnp.arange(rows) + jax.random.uniform(key, (rows,))) / rows


def ddim(
    velocity: Callable[[jax.Array, jax.Array], jax.Array], noise: jax.Array, steps: int
) -> jax.Array:
    """What noise becomes in `steps` equal steps of time, one compiled loop.

    Args:
      velocity: (x_t float32[B, ...], t float32[B]) -> v. noise: float32[B, ...].
    """

    def one(i: jax.Array, x_t: jax.Array) -> jax.Array:
        now, later = rates(1 - i / steps), rates(1 - (i + 1) / steps)
        t = jnp.full(len(x_t), 1 - i / steps)
        v = velocity(x_t, t)
        return later[0] * (now[0] * x_t - now[1] * v) + later[1] * (now[1] * x_t + now[0] * v)

    return jax.lax.fori_loop(0, steps, one, noise)
