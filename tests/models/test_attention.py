"""Attention: a slow reference in NumPy, and every kernel that runs here against it, with gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.errors import UserError
from mm.models.attention import PADDING, Mask, attention

GPU = jax.default_backend() == "gpu"


def arrays(queries: int, keys: int, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q, k, v of two examples, two heads of eight features."""
    rng = np.random.default_rng(seed)
    shapes = (2, 2, queries, 8), (2, 2, keys, 8), (2, 2, keys, 8)
    q, k, v = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in shapes)
    return q, k, v


def decoder_mask(tokens: int) -> Mask:
    """Three modalities after each other, the second causal; the second example has padding at its end."""
    queries = np.tile(np.arange(tokens) * 3 // tokens, (2, 1))
    keys = queries.copy()
    keys[1, -tokens // 3 :] = PADDING
    return Mask(jnp.asarray(queries), jnp.asarray(keys), jnp.asarray(queries == 1))


def padding_mask(tokens: int) -> Mask:
    """The second example has two keys less."""
    there = np.ones((2, tokens), bool)
    there[1, -2:] = False
    return Mask.of_keys(jnp.asarray(there))


CASES = {
    "everything": (6, 6, None),
    "padding": (5, 7, padding_mask(7)),
    "groups, some causal": (9, 9, decoder_mask(9)),
    "longer than a block": (650, 650, decoder_mask(650)),
}


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: Mask | None) -> np.ndarray:
    """Query by query; 0 where a query has no key."""
    out = np.zeros(q.shape, np.float64)
    for b, h, i in np.ndindex(q.shape[:3]):
        allowed = [j for j in range(k.shape[2]) if mask is None or allows(mask, b, i, j)]
        if allowed:
            scores = k[b, h, allowed].astype(np.float64) @ q[b, h, i] / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max())
            out[b, h, i] = weights @ v[b, h, allowed] / weights.sum()
    return out


def allows(mask: Mask, b: int, i: int, j: int) -> bool:
    group = mask.queries[b, i if mask.queries.shape[1] > 1 else 0]
    causal = mask.causal is not None and bool(mask.causal[b, i])
    return bool(group == mask.keys[b, j]) and not (causal and j > i)


def answered(mask: Mask | None, out: np.ndarray) -> np.ndarray:
    """bool like `out`: whose query has a key."""
    if mask is None:
        return np.ones(out.shape, bool)
    return np.broadcast_to(np.asarray(mask.dense().any(-1))[..., None], out.shape)


@pytest.mark.parametrize("impl", ["xla", "splash"])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference(case, impl):
    queries, keys, mask = CASES[case]
    if queries > 100:
        mask = None if mask is None else jax.tree.map(lambda x: x[:, :140], mask)
        queries = keys = 140
    q, k, v = arrays(queries, keys)
    out = np.asarray(attention(q, k, v, mask, impl=impl))
    there = answered(mask, out)
    expected = reference(*map(np.asarray, (q, k, v)), jax.tree.map(np.asarray, mask))
    np.testing.assert_allclose(out[there], expected[there], atol=1e-5)
    assert np.isfinite(out).all()


@pytest.mark.parametrize("case", ["padding", "longer than a block"])
def test_splash_has_the_gradients_of_xla(case):
    assert_same("splash", *CASES[case], dtype=jnp.float32, atol=2e-5)


@pytest.mark.skipif(not GPU, reason="cuDNN needs an NVIDIA GPU")
@pytest.mark.parametrize("case", ["everything", "groups, some causal", "longer than a block"])
def test_cudnn_equals_xla(case):
    queries, keys, mask = CASES[case]
    if queries % 2:  # which cuDNN does not take with a mask
        queries = keys = queries + 1
        mask = decoder_mask(queries)
    assert_same("cudnn", queries, keys, mask, dtype=jnp.bfloat16, atol=3e-2)


def assert_same(impl, queries, keys, mask, dtype, atol):
    """Result and gradients of a kernel are those of `xla`, where a query has a key."""
    q, k, v = (x.astype(dtype) for x in arrays(queries, keys))
    weight = jax.random.normal(jax.random.key(1), q.shape) * answered(mask, q)

    def loss(impl, *x):
        out = attention(*x, mask, impl=impl)
        return (out.astype(jnp.float32) * weight).sum(), out

    run = lambda impl: jax.grad(lambda *x: loss(impl, *x), (0, 1, 2), has_aux=True)(q, k, v)
    (grads, out), (grads_xla, out_xla) = run(impl), run("xla")
    there = answered(mask, np.asarray(out))
    np.testing.assert_allclose(
        np.float32(out)[there], np.float32(out_xla)[there], atol=atol, rtol=atol
    )
    for a, b in zip(grads, grads_xla, strict=True):
        np.testing.assert_allclose(np.float32(a), np.float32(b), atol=atol, rtol=atol)


@pytest.mark.parametrize("impl", ["xla", "splash"])
def test_where_all_keys_are_alike_a_query_without_one_gets_their_value(impl):
    """What the decoder relies on: rows that see nothing get a context of equal rows."""
    q, k, v = arrays(5, 5)
    k, v = (jnp.broadcast_to(x[:, :, :1], x.shape) for x in (k, v))
    out = attention(q, k, v, Mask.of_keys(jnp.zeros((2, 5), bool)), impl=impl)
    np.testing.assert_allclose(out, v, atol=1e-5)


@pytest.mark.skipif(GPU, reason="there is one")
def test_cudnn_without_a_gpu_says_so():
    with pytest.raises(UserError, match="needs an NVIDIA GPU"):
        attention(*arrays(4, 4), impl="cudnn")


def test_a_mask_may_be_an_array_but_not_for_splash():
    q, k, v = arrays(6, 6)
    band = jnp.abs(jnp.arange(6)[:, None] - jnp.arange(6)) <= 1
    out = attention(q, k, v, band)
    scores = np.einsum("bhqd,bhkd->bhqk", q, k) / 8**0.5
    weights = np.exp(scores) * np.asarray(band)
    expected = np.einsum("bhqk,bhkd->bhqd", weights / weights.sum(-1, keepdims=True), v)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    with pytest.raises(UserError, match="mask is an array"):
        attention(q, k, v, band, impl="splash")


def test_unknown_kernel():
    with pytest.raises(ValueError, match="known: xla, cudnn, splash"):
        attention(*arrays(4, 4), impl="flash")
