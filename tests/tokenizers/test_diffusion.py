"""The arithmetic of diffusion against float64, and DDIM where the velocity is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.tokenizers import diffusion


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 1, width=32), st.integers(0, 99))
def test_what_was_mixed_is_told_by_the_velocity(t, seed):
    x, noise = np.random.default_rng(seed).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x_t, v = diffusion.noised(x, noise, jnp.full(3, t))
    alpha, sigma = np.cos(np.pi * np.float64(t) / 2), np.sin(np.pi * np.float64(t) / 2)
    np.testing.assert_allclose(x_t, alpha * x + sigma * noise, atol=1e-5)
    np.testing.assert_allclose(alpha * np.asarray(x_t) - sigma * np.asarray(v), x, atol=1e-5)
    np.testing.assert_allclose(sigma * np.asarray(x_t) + alpha * np.asarray(v), noise, atol=1e-5)


def test_nothing_is_left_at_the_end():
    x, noise = np.full((2, 3), 1e6, np.float32), np.ones((2, 3), np.float32)
    x_t, _ = diffusion.noised(x, noise, jnp.ones(2))
    np.testing.assert_array_equal(x_t, noise)


def test_times_of_a_batch_are_in_every_part():
    found = np.asarray(diffusion.times(jax.random.key(0), 10))
    np.testing.assert_array_equal(np.floor(found * 10), np.arange(10))


@pytest.mark.parametrize("steps", [1, 4, 25])
def test_ddim_finds_the_one_thing_that_there_is(steps):
    """All data is `x`: the best velocity follows from what is left of it."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.float32)

    def velocity(x_t, t):
        alpha, sigma = (r[:, None] for r in diffusion.rates(t))
        noise = (x_t - alpha * x) / sigma
        return alpha * noise - sigma * x

    made = jax.jit(lambda n: diffusion.ddim(velocity, n, steps))(jax.random.normal(jax.random.key(1), x.shape))  # fmt: skip
    np.testing.assert_allclose(made, x, atol=1e-5)


def test_ddim_of_normal_data_keeps_its_law_better_with_more_steps():
    """Data of deviation 0.5: the exact velocity is linear in x_t, and so is what noise becomes."""

    def velocity(x_t, t):
        alpha, sigma = (r[:, None] for r in diffusion.rates(t))
        share = x_t / (alpha**2 * 0.25 + sigma**2)
        return alpha * sigma * share - sigma * alpha * 0.25 * share

    noise = jax.random.normal(jax.random.key(0), (20_000, 1))
    off = [abs(float(diffusion.ddim(velocity, noise, s).std()) - 0.5) for s in (2, 8, 25)]
    assert off[0] > off[1] > off[2] and off[2] < 0.03
