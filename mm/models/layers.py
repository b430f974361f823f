"""Transformer layers that every network here is built of: trunk, tokenizers and judges.

Parameters are float32; `dtype` is what matrix products are computed in. Linear layers work on
flattened [tokens, features]: XLA on CPU transposes the gradient of a batched product, which costs
half of a training step. Blocks are stacked over depth and scanned (`stack`, `run_stack`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from mm.models.attention import Mask, attention
from mm.sharding import platform, split_rows

M = TypeVar("M", bound=nnx.Module)


class Linear(nnx.Module):
    """y = x W + b on flattened rows.

    `parts` > 1 initialises W as that many matrices side by side (fused qkv), Xavier-uniform each.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        parts: int = 1,
        dtype: Any = jnp.float32,
        result: Any = None,
        on_cpu: Any = None,
    ):
        """Args:
        dtype: of what is multiplied, and of what comes out, unless `result` is another one: float32 where it is added to such a
          stream. on_cpu: the like, on a CPU, where sums in float32 that are rounded cost time.
        """
        bound = (6 / (d_in + d_out // parts)) ** 0.5
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), (d_in, d_out), minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jnp.zeros(d_out)) if bias else None
        self.dtype, self.result, self.on_cpu = dtype, result or dtype, on_cpu

    def __call__(self, x: jax.Array) -> jax.Array:
        flat, kernel = x.reshape(-1, x.shape[-1]), self.kernel[...]
        bias = None if self.bias is None else self.bias[...]
        if self.dtype == jnp.float32:
            y = flat.astype(jnp.float32) @ kernel
            y = y if bias is None else y + bias
        else:
            result = self.on_cpu if self.on_cpu and platform() == "cpu" else self.result
            y = jnp.asarray(rounded_once(result, flat.astype(self.dtype), kernel, bias))
        return y.reshape(*x.shape[:-1], -1)


def product(x_nd: jax.Array, kernel: jax.Array) -> jax.Array:
    """x W as float32 sums; W is rounded to the dtype of x where the hardware multiplies such numbers, and not on a CPU.

    (XLA's products on CPU are of float32 whatever their factors were, so that rounding W costs time there and digits.)
    """
    if platform() != "cpu":
        kernel = kernel.astype(x_nd.dtype)
    return jnp.matmul(x_nd, kernel, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def rounded_once(
    result: Any, x_nd: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> jax.Array:
    """x W + b in the dtype `result`, of float32 sums; products of the gradient are in the dtype of x as well.

    Args:
      kernel, bias: float32; so are their gradients, which are rounded nowhere.
    """
    y = product(x_nd, kernel)
    return (y if bias is None else y + bias).astype(result)


def _rounded_once(
    result: Any, x: jax.Array, kernel: jax.Array, bias: jax.Array | None
) -> tuple[jax.Array, Any]:
    return rounded_once(result, x, kernel, bias), (x, kernel, bias)


def _rounded_once_gradient(
    result: Any, kept: Any, g: jax.Array
) -> tuple[jax.Array, jax.Array, Any]:
    x, kernel, bias = kept
    to_bias = None if bias is None else g.astype(jnp.float32).sum(0)
    g = g.astype(x.dtype)
    to_kernel = jnp.matmul(x.T, g, preferred_element_type=jnp.float32)
    return product(g, kernel.T).astype(x.dtype), to_kernel, to_bias


rounded_once.defvjp(_rounded_once, _rounded_once_gradient)


class LayerNorm(nnx.Module):
    """Layer norm over the last axis, computed in float32, eps 1e-6."""

    def __init__(self, width: int, *, bias: bool = True):
        self.scale = nnx.Param(jnp.ones(width))
        self.bias = nnx.Param(jnp.zeros(width)) if bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        mean = x32.mean(-1, keepdims=True)
        var = jnp.square(x32 - mean).mean(-1, keepdims=True)
        y = (x32 - mean) * jax.lax.rsqrt(var + 1e-6) * self.scale[...]
        return (y if self.bias is None else y + self.bias[...]).astype(x.dtype)


class SelfAttention(nnx.Module):
    """Multi-head self-attention with one fused qkv product; optional LayerNorm on q and k per head."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        qk_norm: bool = False,
        impl: str = "xla",
        dtype: Any = jnp.float32,
        stream: Any = None,
    ):
        kind: dict[str, Any] = {"bias": bias, "dtype": dtype}
        self.qkv = Linear(width, 3 * width, rngs=rngs, parts=3, on_cpu=stream, **kind)
        self.out = Linear(width, width, rngs=rngs, result=stream, **kind)
        self.q_norm = LayerNorm(width // heads, bias=False) if qk_norm else None
        self.k_norm = LayerNorm(width // heads, bias=False) if qk_norm else None
        self.heads, self.impl = heads, impl

    def __call__(self, x_bnd: jax.Array, mask: Mask | jax.Array | None = None) -> jax.Array:
        q, k, v = rearrange(
            self.qkv(x_bnd), "b n (three h d) -> three b h n d", three=3, h=self.heads
        )
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return self.out(rearrange(attention(q, k, v, mask, impl=self.impl), "b h n d -> b n (h d)"))


class CrossAttention(nnx.Module):
    """Multi-head attention of queries over a context, with one fused kv product."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        bias: bool = True,
        qk_norm: bool = False,
        impl: str = "xla",
        dtype: Any = jnp.float32,
        stream: Any = None,
    ):
        kind: dict[str, Any] = {"bias": bias, "dtype": dtype}
        self.q = Linear(width, width, rngs=rngs, on_cpu=stream, **kind)
        self.kv = Linear(width, 2 * width, rngs=rngs, parts=2, on_cpu=stream, **kind)
        self.out = Linear(width, width, rngs=rngs, result=stream, **kind)
        self.q_norm = LayerNorm(width // heads, bias=False) if qk_norm else None
        self.k_norm = LayerNorm(width // heads, bias=False) if qk_norm else None
        self.heads, self.impl = heads, impl

    def __call__(
        self, x_bqd: jax.Array, context_bkd: jax.Array, mask: Mask | jax.Array | None = None
    ) -> jax.Array:
        q = rearrange(self.q(x_bqd), "b n (h d) -> b h n d", h=self.heads)
        k, v = rearrange(self.kv(context_bkd), "b n (two h d) -> two b h n d", two=2, h=self.heads)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        return self.out(rearrange(attention(q, k, v, mask, impl=self.impl), "b h n d -> b n (h d)"))


MLP_KINDS = ("gelu", "gelu_tanh", "swiglu")


def hidden_size(kind: str, width: int) -> int:
    """Hidden features of an `Mlp`: 4 widths; two thirds of that with a gate, as 4M sizes it."""
    return int(2 * (4 * width) / 3) if kind == "swiglu" else 4 * width


class Mlp(nnx.Module):
    """Feed-forward: `gelu` (exact erf) or `gelu_tanh` (its usual approximation, cheaper on CPU), or
    `swiglu` (gated SiLU); see `hidden_size`."""

    def __init__(
        self,
        width: int,
        *,
        rngs: nnx.Rngs,
        kind: str = "gelu",
        bias: bool = True,
        dtype: Any = jnp.float32,
        stream: Any = None,
    ):
        if kind not in MLP_KINDS:
            raise ValueError(f"mlp {kind!r} does not exist; known: {', '.join(MLP_KINDS)}")
        hidden = hidden_size(kind, width)
        more: dict[str, Any] = {"rngs": rngs, "bias": bias, "dtype": dtype}
        self.up = Linear(width, hidden, on_cpu=stream, **more)
        self.gate = Linear(width, hidden, on_cpu=stream, **more) if kind == "swiglu" else None
        self.down = Linear(hidden, width, result=stream, **more)
        self.approximate = kind == "gelu_tanh"

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.gate is None:
            return self.down(jax.nn.gelu(self.up(x), approximate=self.approximate))
        return self.down(jax.nn.silu(self.up(x)) * self.gate(x))


class Block(nnx.Module):
    """Pre-norm encoder block: x += attention(norm x); x += mlp(norm x)."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        mlp: str = "gelu",
        bias: bool = True,
        qk_norm: bool = False,
        impl: str = "xla",
        dtype: Any = jnp.float32,
        stream: Any = None,
    ):
        self.norm1 = LayerNorm(width, bias=bias)
        kind: dict[str, Any] = {"bias": bias, "dtype": dtype, "stream": stream}
        self.attn = SelfAttention(width, heads, rngs=rngs, qk_norm=qk_norm, impl=impl, **kind)
        self.norm2 = LayerNorm(width, bias=bias)
        self.mlp = Mlp(width, rngs=rngs, kind=mlp, **kind)

    def __call__(self, x_bnd: jax.Array, mask: Mask | jax.Array | None = None) -> jax.Array:
        x_bnd = x_bnd + self.attn(self.norm1(x_bnd), mask)
        return x_bnd + self.mlp(self.norm2(x_bnd))


class DecoderBlock(nnx.Module):
    """Pre-norm decoder block: self-attention, cross-attention to the context (its own norm), mlp."""

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        rngs: nnx.Rngs,
        mlp: str = "gelu",
        bias: bool = True,
        qk_norm: bool = False,
        impl: str = "xla",
        dtype: Any = jnp.float32,
        stream: Any = None,
    ):
        self.norm1 = LayerNorm(width, bias=bias)
        kind: dict[str, Any] = {"bias": bias, "dtype": dtype, "stream": stream}
        self.attn = SelfAttention(width, heads, rngs=rngs, qk_norm=qk_norm, impl=impl, **kind)
        self.query_norm = LayerNorm(width, bias=bias)
        self.context_norm = LayerNorm(width, bias=bias)
        self.cross = CrossAttention(width, heads, rngs=rngs, qk_norm=qk_norm, impl=impl, **kind)
        self.norm2 = LayerNorm(width, bias=bias)
        self.mlp = Mlp(width, rngs=rngs, kind=mlp, **kind)

    def __call__(
        self,
        x_bqd: jax.Array,
        context_bkd: jax.Array,
        self_mask: Mask | jax.Array | None = None,
        cross_mask: Mask | jax.Array | None = None,
    ) -> jax.Array:
        x_bqd = x_bqd + self.attn(self.norm1(x_bqd), self_mask)
        x_bqd = x_bqd + self.cross(
            self.query_norm(x_bqd), self.context_norm(context_bkd), cross_mask
        )
        return x_bqd + self.mlp(self.norm2(x_bqd))


def stack(make: Callable[[nnx.Rngs], M], depth: int, rngs: nnx.Rngs) -> M:
    """`depth` blocks as one module whose every parameter has a leading axis [depth]."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=(0,), out_axes=0)
    def create(rngs: nnx.Rngs) -> M:
        return make(rngs)

    return create(rngs)


def run_stack(
    blocks: nnx.Module,
    x: jax.Array,
    *args: Any,
    first: int | None = None,
    scan: bool = True,
    remat: str = "none",
) -> jax.Array:
    """Runs stacked blocks over `x` (each called as block(x, *args)), or only the `first` of them.

    Args:
      scan: one compiled block looped over depth; False unrolls (same numbers, longer to compile).
      remat: `none` keeps activations for the backward pass, `full` recomputes them,
        `dots` keeps only the results of matrix products.
    """
    graphdef, params = nnx.split(blocks)
    depth = jax.tree.leaves(params)[0].shape[0]
    count = depth if first is None else first

    def body(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        x = split_rows(x)
        return nnx.merge(graphdef, layer)(x, *args), None

    policies = {"none": None, "full": None, "dots": jax.checkpoint_policies.checkpoint_dots}
    if remat != "none":
        body = jax.checkpoint(body, policy=policies[remat])
    if scan:
        return jax.lax.scan(body, x, jax.tree.map(lambda p: p[:count], params))[0]
    for i in range(count):
        x, _ = body(x, jax.tree.map(lambda p, i=i: p[i], params))
    return x


def sincos_1d(length: int, width: int) -> jax.Array:
    """Fixed position embeddings float32[length, width]: [sin | cos] halves, frequencies 10000^(-i/(width/2)).

    Source: Vaswani et al. 2017; the layout of halves is 4M's.
    """
    omega = 10000.0 ** (-jnp.arange(width // 2) / (width / 2))
    angle = jnp.arange(length)[:, None] * omega
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=1)


def sincos_2d(height: int, width_tokens: int, width: int) -> jax.Array:
    """Fixed position embeddings float32[height * width_tokens, width] of a grid, row-major.

    Source: MoCo-v3; the first half of the features varies with the row, the second with the column.
    """
    rows = jnp.repeat(sincos_1d(height, width // 2), width_tokens, axis=0)
    cols = jnp.tile(sincos_1d(width_tokens, width // 2), (height, 1))
    return jnp.concatenate([rows, cols], axis=1)


def unit(x: jax.Array) -> jax.Array:
    """Rows scaled to length 1, float32; the gradient at zero is finite."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)
