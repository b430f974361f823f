"""Gated products and their contrast against float64 loops; with gates open it is plain Symile."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm.models.heads import Gate
from mm.objectives.contrastive import gated, nway

ROWS, WIDTH, HIDDEN = 5, 8, 4


def draw(modalities, seed=0, absent=0.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(modalities, ROWS, WIDTH))
    z /= np.linalg.norm(z, axis=-1, keepdims=True)
    return jnp.asarray(z, jnp.float32), rng.random((modalities, ROWS)) >= absent


def head_of(modalities, strength=0.5):
    head = Gate(hidden=HIDDEN, strength=strength).build(modalities, WIDTH, nnx.Rngs(0))
    head.neutral[...] += jax.random.normal(jax.random.key(1), head.neutral[...].shape)
    return head


def slow_score(head, m, anchor, parts):
    """One anchor [E] and one tuple [K, E] without the anchor's modality, number by number."""
    f = lambda x: np.asarray(x[...], np.float64)
    others = [k for k in range(len(f(head.key))) if k != m]
    query = anchor @ f(head.query)[m]
    fit = [query @ (z @ f(head.key)[k]) for k, z in zip(others, parts, strict=True)]
    share = np.exp(np.array([*fit, query @ f(head.null)[m]]) / HIDDEN**0.5)
    share /= share.sum()
    strength = 1 / (1 + np.exp(-f(head.strength)))
    product = anchor
    for k, z, a in zip(others, parts, share, strict=False):
        g = 1 - strength + strength * a
        product = product * (g * z + (1 - g) * f(head.neutral)[k])
    return product.sum()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_scores(n):
    z, _ = draw(n, seed=n)
    head, slow = head_of(n), np.asarray(z, np.float64)
    for m in (0, n - 1):
        others = [k for k in range(n) if k != m]
        found = jax.jit(lambda a, b, m=m: head(m, a, b))(z[m], z[jnp.array(others)])
        expected = [[slow_score(head, m, slow[m, i], slow[others, j]) for j in range(ROWS)] for i in range(ROWS)]  # fmt: skip
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("absent", [0.0, 0.2])
def test_gated_symile(absent):
    z, there = draw(3, seed=3, absent=absent)
    head, slow, group = head_of(3), np.asarray(z, np.float64), np.array([0, 1, 2, 2, 3])
    key, scale = jax.random.key(5), 3.0
    ask = jax.jit(lambda z: gated.gated_symile(z, jnp.asarray(there), jnp.asarray(group), jnp.asarray(scale), key, head))  # fmt: skip
    total, count = 0.0, 0
    for m in range(3):
        others = [k for k in range(3) if k != m]
        keys = jax.random.split(jax.random.fold_in(key, m), 2)
        rows = np.stack([jax.random.permutation(k, ROWS) for k in keys])
        logit = lambda i, part, m=m, others=others: scale * WIDTH**0.5 * slow_score(head, m, slow[m, i], slow[others, part])  # fmt: skip
        for i in np.flatnonzero(there.all(0)):
            negatives = [
                logit(i, part) for part in rows.T if there[others, part].all() and not (group[part] == group[i]).all()
            ]  # fmt: skip
            own = logit(i, [i, i])
            total += np.log(np.exp([own, *negatives]).sum()) - own
            count += 1
    assert count
    np.testing.assert_allclose(ask(z), (total, count), rtol=1e-4)


def test_open_gates_are_plain_symile():
    z, there = draw(3, seed=4)
    head = head_of(3, strength=-100.0)
    arguments = z, jnp.asarray(there), jnp.arange(ROWS), jnp.asarray(2.0), jax.random.key(0)
    found = jax.jit(partial(gated.gated_symile, score=head))(*arguments)
    np.testing.assert_allclose(found, jax.jit(nway.symile)(*arguments), rtol=1e-5)


def test_what_fits_nothing_is_replaced_by_the_null():
    query, key = jnp.array([[9.0, 0.0]]), jnp.array([[[9.0, 0.0]], [[-9.0, 0.0]]])
    gate = gated.gates(query, key, jnp.array([0.0, 0.0]), jnp.asarray(1.0))
    np.testing.assert_allclose(gate[:, 0, 0], [1, 0], atol=1e-6)
    gate = gated.gates(query, key[1:], jnp.array([0.0, 0.0]), jnp.asarray(1.0))
    np.testing.assert_allclose(gate, 0, atol=1e-6)


def test_nobody_whole_is_no_loss():
    z, _ = draw(3)
    nobody = jnp.zeros((3, ROWS), bool).at[0].set(True)
    ask = jax.jit(jax.value_and_grad(lambda z: gated.gated_symile(z, nobody, jnp.arange(ROWS), jnp.asarray(9.0), jax.random.key(0), head_of(3))[0]))  # fmt: skip
    value, grad = ask(z)
    assert value == 0 and (np.asarray(grad) == 0).all()
