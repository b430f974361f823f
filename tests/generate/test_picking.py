"""Draws by one random number each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mm.generate.picking import pick

drawn = jax.jit(pick)


@pytest.mark.parametrize("size", [1, 5, 128, 300])
def test_ids_come_with_their_probability(size):
    rng = np.random.default_rng(size)
    weights = rng.exponential(size=size).astype(np.float32) * (rng.random(size) < 0.7)
    weights[0] += 0.1
    n = 200_000
    u = (np.arange(n) + 0.5) / n
    ids = np.asarray(drawn(jnp.broadcast_to(weights, (n, size)), jnp.asarray(u, jnp.float32)))
    share = np.bincount(ids, minlength=size) / n
    np.testing.assert_allclose(share, weights / weights.sum(), atol=5e-5)
    assert (share[weights == 0] == 0).all()


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float32, (3, 140), elements=st.sampled_from([0.0, 1e-30, 1e-6, 0.3, 1.0])),
    st.lists(st.sampled_from([0.0, 0.5, 1 - 2**-24]), min_size=3, max_size=3),
)
def test_what_has_no_weight_is_never_picked_at_the_ends_either(weights, u):
    weights[:, 7] += np.float32(1e-3)
    ids = np.asarray(drawn(jnp.asarray(weights), jnp.asarray(u, jnp.float32)))
    assert (weights[np.arange(3), ids] > 0).all()
