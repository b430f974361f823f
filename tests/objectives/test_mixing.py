"""Mixtures: exact at their ends, unit between them, and what they are positives of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mm.objectives.contrastive import mixing


def unit(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True), jnp.float32)


@given(st.integers(0, 99), st.floats(0, 1), st.sampled_from([0.0, 1e-6, 1e-3, 1.0]))
def test_slerp_stays_on_the_sphere(seed, share, distance):
    """Also where x and y (nearly) coincide; and divides the angle as it says."""
    x = unit(5, 8, seed=seed)
    y = x + distance * unit(5, 8, seed=seed + 100)
    y /= jnp.linalg.norm(y, axis=1, keepdims=True)
    mixed = mixing.slerp(x, y, share)
    np.testing.assert_allclose(jnp.linalg.norm(mixed, axis=1), 1, atol=1e-6)
    angle = lambda a, b: 2 * np.arcsin(np.minimum(np.linalg.norm(np.float64(a - b), axis=1) / 2, 1))
    np.testing.assert_allclose(angle(x, mixed), share * angle(x, y), atol=2e-4)


def test_slerp_is_exact_at_its_ends_and_finite_everywhere():
    x, y = unit(5, 8), unit(5, 8, seed=1)
    np.testing.assert_allclose(mixing.slerp(x, y, jnp.zeros(5)), x, atol=1e-6)
    np.testing.assert_allclose(mixing.slerp(x, y, jnp.ones(5)), y, atol=1e-6)
    for other in (x, -x, y):
        grad = jax.grad(lambda x, other=other: mixing.slerp(x, other, 0.5).sum())(x)
        assert np.isfinite(grad).all()


def test_geodesic_negatives_keep_the_positives():
    x, y, share = unit(6, 8), unit(6, 8, seed=1), jnp.linspace(0, 1, 6)
    total, count = mixing.geodesic_negatives(x, y, jnp.asarray(5.0), share)
    mixed = np.float64(mixing.slerp(x, y, share))
    expected = 0.0
    for a in (np.float64(x), np.float64(y)):
        logits = 5 * a @ mixed.T
        logits[np.diag_indices(6)] = 5 * (np.float64(x) * np.float64(y)).sum(1)
        expected += (np.log(np.exp(logits).sum(1)) - np.diag(logits)).sum() / 2
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == 6


@pytest.mark.parametrize("shape", [(8, 3), (8, 4, 4)])
def test_mixed_rows_and_targets_belong_together(shape):
    rows = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    mixed, other, share = mixing.mixed_rows(jax.random.key(0), rows, alpha=0.5)
    assert (share >= 0.5).all() and sorted(np.asarray(other)) == list(range(8))
    for i in range(8):
        expected = share[i] * rows[i] + (1 - share[i]) * rows[other[i]]
        np.testing.assert_allclose(mixed[i], expected, rtol=1e-5)
    target = mixing.mixed_targets(jnp.eye(8), other, share)
    np.testing.assert_allclose(target.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(target[jnp.arange(8), jnp.arange(8)], np.where(other == np.arange(8), 1, share), rtol=1e-6)  # fmt: skip
