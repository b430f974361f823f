"""Similarities against loops over every token, and what may not change them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.objectives.contrastive import similarity


def draw(rows, tokens, width=6, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, tokens, width))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    there = rng.random((rows, tokens)) < 0.7
    there[0] = False
    there[1:, 0] = True
    return x, there


def slow_late(a, b, there_a, there_b, pool, mean):
    out = np.zeros((len(a), len(b)))
    for i, j in np.ndindex(out.shape):
        found = []
        for token in a[i][there_a[i]]:
            s = b[j][there_b[j]] @ token
            if len(s):
                soft = np.exp(s / 0.1) / np.exp(s / 0.1).sum()
                found.append({"max": s.max(), "sum": s.sum(), "softmax": (soft * s).sum()}[pool])
        out[i, j] = (np.mean(found) if mean else np.sum(found)) if found else 0
    return out


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("pool", ["max", "softmax", "sum"])
def test_late_interaction_equals_the_loop(pool, mean):
    (a, there_a), (b, there_b) = draw(4, 5), draw(3, 7, seed=1)
    found = similarity.late_interaction(*map(jnp.asarray, (a, b, there_a, there_b)), pool=pool, mean=mean)  # fmt: skip
    np.testing.assert_allclose(found, slow_late(a, b, there_a, there_b, pool, mean), atol=1e-5)


def test_padding_changes_nothing_and_gets_no_gradient():
    (a, there_a), (b, there_b) = draw(4, 5), draw(3, 7, seed=1)
    a, b, there_a, there_b = map(jnp.asarray, (a, b, there_a, there_b))
    noise = jax.random.normal(jax.random.key(0), b.shape)
    other = jnp.where(there_b[..., None], b, noise)
    for pool in ("max", "softmax", "sum"):
        score = lambda b, pool=pool: similarity.late_interaction(a, b, there_a, there_b, pool=pool)
        np.testing.assert_array_equal(score(b), score(other))
        grad = jax.grad(lambda b, score=score: (score(b) ** 2).sum())(other)
        assert (np.asarray(grad)[~np.asarray(there_b)] == 0).all() and np.isfinite(grad).all()


def test_late_interaction_never_holds_all_products():
    """Compiled for 64 x 64 sets of 32 tokens, with its gradient: less memory than [A, B, n, m] takes."""
    x = jax.ShapeDtypeStruct((64, 32, 16), "float32")
    there = jax.ShapeDtypeStruct((64, 32), "bool")
    loss = lambda a, b, ta, tb: similarity.late_interaction(a, b, ta, tb).sum()
    program = jax.jit(jax.grad(loss, (0, 1))).lower(x, x, there, there).compile()
    assert program.memory_analysis().temp_size_in_bytes < 64 * 64 * 32 * 32 * 4 / 8


def test_conditioned_pool_goes_from_mean_to_best():
    x, there = draw(3, 5)
    query = x[1:3, 0]
    cold, warm = (similarity.conditioned_pool(jnp.asarray(query), jnp.asarray(x), jnp.asarray(there), t) for t in (1e-3, 1e6))  # fmt: skip
    for a, b in np.ndindex(2, 3):
        own = x[b][there[b]]
        if not len(own):
            np.testing.assert_array_equal(cold[a, b], 0)
            continue
        np.testing.assert_allclose(warm[a, b], own.mean(0), atol=1e-5)
        np.testing.assert_allclose(cold[a, b], own[(own @ query[a]).argmax()], atol=1e-5)


def test_lexical_is_the_largest_of_what_is_there():
    rng = np.random.default_rng(0)
    logits, there = rng.normal(size=(2, 3, 5)), np.array([[1, 1, 0], [0, 0, 0]], bool)
    found = np.asarray(similarity.lexical(jnp.asarray(logits), jnp.asarray(there)))
    np.testing.assert_allclose(found[0], np.log1p(np.maximum(logits[0, :2], 0)).max(0), rtol=1e-5)
    assert (found[1] == 0).all()
    np.testing.assert_allclose(
        similarity.flops_penalty(jnp.asarray(found)), (found.mean(0) ** 2).sum(), rtol=1e-5
    )


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    """Against bisection of its threshold; and its gradient lives on the support alone."""
    x = np.random.default_rng(0).normal(size=(50, 7)) * 2
    low, high = x.min(1) - 1, x.max(1)
    for _ in range(60):
        middle = (low + high) / 2
        over = np.maximum(x - middle[:, None], 0).sum(1) > 1
        low, high = np.where(over, middle, low), np.where(over, high, middle)
    found = similarity.sparsemax(jnp.asarray(x))
    np.testing.assert_allclose(found, np.maximum(x - low[:, None], 0), atol=1e-6)
    assert (np.asarray(found) == 0).any()
    jacobian = jax.jacobian(similarity.sparsemax)(jnp.asarray(x[0], jnp.float32))
    support = np.asarray(found[0]) > 0
    by_hand = np.diag(support * 1.0) - np.outer(support, support) / support.sum()
    np.testing.assert_allclose(jacobian, by_hand, atol=1e-6)


@pytest.mark.parametrize("sparse", [True, False])
def test_codes_sum_to_one_whatever_the_padding(sparse):
    x, there = draw(4, 5)
    codes = np.random.default_rng(1).normal(size=(9, 6)) * 4
    find = lambda x: np.asarray(similarity.code_weights(jnp.asarray(x), jnp.asarray(there), jnp.asarray(codes), sparse))  # fmt: skip
    found = find(x)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found, find(np.where(there[..., None], x, 99.0)))
    if sparse:
        assert (found == 0).any()
