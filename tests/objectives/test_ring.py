"""The ring on one device; tests/sharded.py has it on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.objectives.contrastive.pair import pair_loss, sigmoid, softmax
from mm.objectives.contrastive.ring import Side, in_chunks, ring_pair_loss


def sides(rows=24, width=8, absent=0.2, groups=10):
    """Two sides whose rows i have one group."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2, rows, width)).astype(np.float32)
    group = jnp.asarray(rng.integers(0, groups, rows), jnp.int32)
    return [Side(jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True)), group, jnp.asarray(rng.random(rows) >= absent)) for x in z]  # fmt: skip


def whole(a, b, scale, bias, form):
    logits = scale * a.z @ b.z.T + bias
    reduction = {"softmax": softmax, "sigmoid": sigmoid}[form]
    target = a.group[:, None] == b.group
    return pair_loss(logits, target, a.there, b.there, reduction=reduction)


@pytest.mark.parametrize("block", [4, 1024])
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_blocks_change_nothing(form, block):
    a, b = sides()

    def loss(function, za, zb, scale, bias):
        total, count = function(a._replace(z=za), b._replace(z=zb), scale, bias, form)
        return total / count

    args = a.z, b.z, jnp.asarray(14.0), jnp.asarray(-3.0)
    ring = lambda *x: ring_pair_loss(*x, block=block)
    found = jax.value_and_grad(lambda *x: loss(ring, *x), (0, 1, 2, 3))(*args)
    expected = jax.value_and_grad(lambda *x: loss(whole, *x), (0, 1, 2, 3))(*args)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5, rtol=1e-4)


def test_nobody_is_nothing():
    a, b = sides(absent=1.1)
    for form in ("softmax", "sigmoid"):
        total, count = ring_pair_loss(a, b, jnp.asarray(5.0), form=form)
        assert total == 0 and count == 0


def test_memory_grows_with_rows_and_not_with_products():
    def temporaries(rows):
        x = jax.ShapeDtypeStruct((rows, 32), "float32")
        side = Side(x, jax.ShapeDtypeStruct((rows,), "int32"), jax.ShapeDtypeStruct((rows,), "bool"))  # fmt: skip
        loss = lambda a, b: ring_pair_loss(a, b, jnp.asarray(10.0), block=256)[0]
        program = jax.jit(jax.grad(loss, allow_int=True)).lower(side, side).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporaries(8192) < 8192 * 8192 * 4 / 4
    assert temporaries(8192) < 3 * temporaries(4096)


def test_chunks_give_the_gradient_of_the_whole_batch():
    """And their plain sum does not."""
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(16, 6)), jnp.float32) for _ in range(2))
    w = jnp.asarray(rng.normal(size=(6, 6)), jnp.float32)
    there = jnp.ones(16, bool)

    def loss(w, x, y, chunk):
        z = in_chunks(lambda x: jnp.tanh(x @ w), x, chunk)
        return pair_loss(z @ y.T, jnp.eye(len(x)), there[: len(x)], there[: len(x)])[0]

    whole = jax.grad(loss)(w, x, y, 16)
    np.testing.assert_allclose(jax.grad(loss)(w, x, y, 4), whole, atol=1e-5)
    summed = sum(jax.grad(loss)(w, x[i : i + 4], y[i : i + 4], 4) for i in range(0, 16, 4))
    assert np.abs(summed - whole).max() > 0.1
