"""The pair loss and its n-way forms against a slow float64 loop, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.objectives.contrastive.nway import all_pairs, fused_to_hidden
from mm.objectives.contrastive.pair import pair_loss


def slow_pair(logits, positive, mask_a, mask_b):
    total, count = 0.0, 0
    for x, p, rows, cols in (
        (logits, positive, mask_a, mask_b),
        (logits.T, positive.T, mask_b, mask_a),
    ):
        for i in np.flatnonzero(rows):
            there = np.flatnonzero(cols)
            mine = [j for j in there if p[i, j]]
            if mine:
                log_z = np.log(np.exp(x[i, there].astype(np.float64)).sum())
                total += np.mean([log_z - x[i, j] for j in mine])
                count += 1
    return total / 2, count / 2


@pytest.mark.parametrize("absent", [0.0, 0.3])
@pytest.mark.parametrize("groups", [3, 100])
def test_pair_equals_the_loop(absent, groups):
    rng = np.random.default_rng(groups)
    logits = rng.normal(size=(12, 12)) * 5
    group = rng.integers(0, groups, 12)
    positive = group[:, None] == group
    mask_a, mask_b = rng.random((2, 12)) >= absent
    got = pair_loss(
        jnp.asarray(logits), jnp.asarray(positive), jnp.asarray(mask_a), jnp.asarray(mask_b)
    )
    np.testing.assert_allclose(got, slow_pair(logits, positive, mask_a, mask_b), rtol=1e-5)


def test_identity_positives_are_infonce():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8)))
    eye, all_there = jnp.eye(8, dtype=bool), jnp.ones(8, bool)
    total, count = pair_loss(logits, eye, all_there, all_there)
    rows = -jnp.diag(jax.nn.log_softmax(logits)).mean()
    columns = -jnp.diag(jax.nn.log_softmax(logits.T)).mean()
    np.testing.assert_allclose(total / count, (rows + columns) / 2, rtol=1e-5)


def test_absent_rows_give_no_gradient_and_nothing_is_nan():
    z = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6, 4)), jnp.float32)
    there = jnp.asarray([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 1, 0]], bool)
    group = jnp.asarray([0, 1, 2, 3, 4, 5])

    def loss(z):
        total, count = all_pairs(z, there, group, jnp.asarray(30.0))
        return total / count

    value, grad = jax.value_and_grad(loss)(z)
    assert np.isfinite(value) and np.isfinite(grad).all()
    assert (grad[0, 4:] == 0).all() and (grad[1, 3] == 0).all() and (grad[1, 5] == 0).all()
    nobody = all_pairs(z, jnp.zeros((2, 6), bool), group, jnp.asarray(30.0))
    assert float(nobody[0]) == 0 and float(nobody[1]) == 0


def test_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        rng = np.random.default_rng(1)
        logits = jnp.asarray(rng.normal(size=(5, 5)))
        positive = jnp.asarray(rng.integers(0, 2, 5)[:, None] == rng.integers(0, 2, 5))
        there = jnp.asarray([1, 1, 0, 1, 1], bool)
        # The loss itself is float32; central differences of the slow float64 loop are the reference.
        grad = jax.grad(lambda x: pair_loss(x, positive, there, there)[0])(logits)
        for i, j in ((0, 1), (3, 4), (1, 1)):
            step = np.zeros((5, 5))
            step[i, j] = 1e-5
            up, down = (
                slow_pair(
                    np.asarray(logits) + s,
                    np.asarray(positive),
                    np.asarray(there),
                    np.asarray(there),
                )[0]
                for s in (step, -step)
            )
            np.testing.assert_allclose(grad[i, j], (up - down) / 2e-5, atol=1e-4)


def test_fused_counts_only_rows_that_saw_nothing_of_the_modality():
    rng = np.random.default_rng(0)
    z = jnp.asarray(rng.normal(size=(3, 6, 4)), jnp.float32)
    fused = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    hidden = jnp.asarray(rng.random((3, 6)) < 0.5)
    there = jnp.ones((3, 6), bool)
    group = jnp.asarray([0, 0, 1, 1, 2, 2])
    total, count = fused_to_hidden(fused, z, hidden, there, group, jnp.asarray(2.0))
    positive = np.asarray(group[:, None] == group)
    expected = np.sum(
        [
            slow_pair(
                np.asarray(2.0 * fused @ z[m].T),
                positive,
                np.asarray(hidden[m]),
                np.asarray(there[m]),
            )
            for m in range(3)
        ],
        axis=0,
    )
    np.testing.assert_allclose((total, count), expected, rtol=1e-5)
