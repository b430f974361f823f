"""Factors of low rank: nothing before they are trained, a b beside every kernel after, and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from mm.models.adapters import adapted, low_rank


def params():
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return {"one": {"kernel": draw(5, 4), "bias": draw(4)}, "blocks": {"kernel": draw(3, 4, 6)}, "table": {"rows": draw(9, 4)}}  # fmt: skip


def test_fresh_adapters_are_nothing_to_the_bit():
    weights = params()
    fresh = low_rank(weights, 2, jax.random.key(0))
    same = jax.jit(adapted)(weights, fresh)
    assert jax.tree.structure(same) == jax.tree.structure(weights)
    jax.tree.map(np.testing.assert_array_equal, same, weights)
    assert len(jax.tree.leaves(fresh)) == 4  # a and b of two kernels


def test_trained_ones_are_added_to_kernels_alone():
    weights = params()
    factors = jax.tree.map(lambda x: x + 1.0, low_rank(weights, 2, jax.random.key(0)))
    found = jax.jit(adapted)(weights, factors)
    one, blocks = factors["one"]["kernel"], factors["blocks"]["kernel"]
    np.testing.assert_allclose(found["one"]["kernel"], weights["one"]["kernel"] + np.asarray(one["a"]) @ np.asarray(one["b"]), rtol=1e-5)  # fmt: skip
    for i in range(3):
        added = np.asarray(blocks["a"][i]) @ np.asarray(blocks["b"][i])
        np.testing.assert_allclose(found["blocks"]["kernel"][i] - weights["blocks"]["kernel"][i], added, atol=1e-5)  # fmt: skip
        assert np.linalg.matrix_rank(added) <= 2
    np.testing.assert_array_equal(found["one"]["bias"], weights["one"]["bias"])
    np.testing.assert_array_equal(found["table"]["rows"], weights["table"]["rows"])
