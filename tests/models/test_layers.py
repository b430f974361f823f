"""Linear layers in bfloat16: what is rounded, and what is not."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm.models.layers import Linear, rounded_once


def test_factors_in_bfloat16_sums_in_float32():
    """On a CPU the kernel is not rounded, and what a float32 stream adds up not either; gradients have their own dtypes."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(4, 64)), jnp.bfloat16)
    linear = Linear(64, 8, rngs=nnx.Rngs(0), dtype=jnp.bfloat16, result=jnp.float32)
    exact = np.asarray(x, np.float64) @ np.asarray(linear.kernel[...], np.float64)
    got = linear(x)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact, atol=1e-5)
    rounded = Linear(64, 8, rngs=nnx.Rngs(0), dtype=jnp.bfloat16)(x)
    assert rounded.dtype == jnp.bfloat16 and np.abs(np.asarray(rounded, np.float64) - exact).max() > 1e-4  # fmt: skip
    loss = lambda k, x: rounded_once(jnp.float32, x, k, None).sum()
    to_kernel, to_x = jax.grad(loss, (0, 1))(linear.kernel[...], x)
    assert (to_kernel.dtype, to_x.dtype) == (jnp.float32, jnp.bfloat16)
    np.testing.assert_allclose(to_kernel[:, 0], np.asarray(x, np.float32).sum(0), atol=1e-5)
