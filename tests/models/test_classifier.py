"""The convolution is compared with a slow sum; the network must see one row at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mm.models.classifier import Conv, ConvNet

SHAPE = (9, 7, 2)
SMALL = ConvNet(widths=(4, 6), depths=(0, 1), stem=5, pool_width=False)


def slow_conv(x, kernel, bias, window, stride):
    """x [H, W, C], kernel [window, window, C, D] -> [ceil(H / stride), ceil(W / stride), D]."""
    h, w, _ = x.shape
    out = np.zeros((-(-h // stride), -(-w // stride), kernel.shape[-1]))
    for i, j in np.ndindex(out.shape[:2]):
        out[i, j] = bias
        for di, dj in np.ndindex(window, window):
            y, z = i * stride + di - window // 2, j * stride + dj - window // 2
            if 0 <= y < h and 0 <= z < w:
                out[i, j] += x[y, z] @ kernel[di, dj]
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_conv_is_the_zero_padded_sum(window, stride):
    conv = Conv(3, 4, rngs=nnx.Rngs(0), window=window, stride=stride)
    conv.bias[...] = jnp.arange(4.0)
    x = np.random.default_rng(0).normal(size=(2, 6, 5, 3)).astype(np.float32)
    kernel = np.asarray(conv.kernel[...]).reshape(window, window, 3, 4)
    want = np.stack([slow_conv(row, kernel, np.arange(4.0), window, stride) for row in x])
    np.testing.assert_allclose(jax.jit(conv)(x), want, atol=1e-5)


def split(settings):
    """(jitted params, x -> logits; params), built as the loop builds them."""
    structure, _ = nnx.split(nnx.eval_shape(lambda: settings.build(SHAPE, 3, nnx.Rngs(0))))
    init = jax.jit(lambda: nnx.to_pure_dict(nnx.state(settings.build(SHAPE, 3, nnx.Rngs(0)))))
    return jax.jit(lambda params, x: nnx.merge(structure, params)(x)), init()


def test_logits_of_a_row_do_not_depend_on_the_other_rows():
    forward, params = split(SMALL)
    x = jax.random.normal(jax.random.key(1), (5, *SHAPE))
    logits = forward(params, x)
    assert logits.shape == (5, 3)
    others = forward(params, x.at[1:].multiply(100))
    np.testing.assert_array_equal(logits[0], others[0])
    assert np.abs(logits[1:] - others[1:]).min() > 1e-4


def test_every_parameter_learns():
    forward, params = split(SMALL)
    x = jax.random.normal(jax.random.key(1), (5, *SHAPE))
    grads = jax.jit(jax.grad(lambda p: jnp.square(forward(p, x)).sum()))(params)
    still = [jax.tree_util.keystr(k) for k, g in jax.tree.leaves_with_path(grads) if not g.any()]
    assert not still


def test_columns_are_told_apart_only_if_not_pooled():
    """Averaging over columns forgets where they were, the other form does not."""
    logits = {}
    for pool_width in (True, False):
        settings = ConvNet(widths=(4,), depths=(0,), stem=1, pool_width=pool_width)
        forward, params = split(settings)
        x = jax.random.normal(jax.random.key(2), (1, *SHAPE))
        logits[pool_width] = forward(params, x), forward(params, x[:, :, ::-1])
    np.testing.assert_allclose(*logits[True], atol=1e-5)
    assert np.abs(logits[False][0] - logits[False][1]).max() > 1e-2


def test_depths_and_widths_must_go_together():
    with pytest.raises(ValueError, match="zip"):
        ConvNet(widths=(4, 6), depths=(0,)).build(SHAPE, 3, nnx.Rngs(0))
