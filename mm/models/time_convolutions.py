"""Convolutions along time, x float32[B, T, C]: whole rows at once, or, where they are causal, chunk by chunk with equal results.

A causal convolution is padded on the left alone, by what it has seen before: zeros at first. `Past` carries that from
chunk to chunk. Nothing here is a statistic over time, so what comes later changes nothing that was computed.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx


class Past:
    """The last inputs of every causal convolution, in the order in which they run.

    Attributes:
      seen: the same after a run: what the next chunk's `Past` is made of.
    """

    def __init__(self, before: Sequence[jax.Array] | None = None):
        """Args:
        before: `seen` of the chunk before; None = this is the first, or the whole.
        """
        self.before = before
        self.seen: list[jax.Array] = []

    def joined(self, x_btc: jax.Array, count: int) -> jax.Array:
        """`count` earlier places and x, [B, count + T, C]; the last `count` of both are kept."""
        earlier = jnp.zeros((len(x_btc), count, x_btc.shape[2]), x_btc.dtype)
        if self.before is not None:
            earlier = self.before[len(self.seen)]
        both = jnp.concatenate([earlier, x_btc], axis=1)
        self.seen.append(both[:, both.shape[1] - count :])
        return both


class TimeConv(nnx.Module):
    """[B, T, d_in] -> [B, T / stride, d_out], T a multiple of `stride`.

    Output i sees nothing behind the end of its own stretch, input (i + 1) * stride - 1, if it is causal; else as far to
    both sides, with zeros beyond the ends.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        rngs: nnx.Rngs,
        window: int = 1,
        stride: int = 1,
        dilation: int = 1,
        causal: bool = True,
    ):
        self.conv = nnx.Conv(
            d_in, d_out, window, strides=stride, kernel_dilation=dilation, padding="VALID", rngs=rngs
        )  # fmt: skip
        self.reach, self.causal = (window - 1) * dilation + 1 - stride, causal

    def __call__(self, x_btc: jax.Array, past: Past) -> jax.Array:
        if self.causal and self.reach:
            x_btc = past.joined(x_btc, self.reach)
        elif self.reach:
            left = self.reach // 2
            x_btc = jnp.pad(x_btc, ((0, 0), (left, self.reach - left), (0, 0)))
        return self.conv(x_btc)


class TimeUp(nnx.Module):
    """[B, n, d_in] -> [B, n * stride, d_out]: a transposed convolution with a window of two strides, trimmed on the right.

    It is written as what it does to each stretch of outputs, which sees the input of its own place and the one before:
    a convolution that makes `stride` outputs at once. Where it is not causal, it sees the one behind as well.
    """

    def __init__(self, d_in: int, d_out: int, stride: int, *, rngs: nnx.Rngs, causal: bool = True):
        self.conv = TimeConv(
            d_in, stride * d_out, rngs=rngs, window=2 if causal else 3, causal=causal
        )
        self.d_out = d_out

    def __call__(self, x_bnc: jax.Array, past: Past) -> jax.Array:
        return self.conv(x_bnc, past).reshape(len(x_bnc), -1, self.d_out)


class ResidualUnit(nnx.Module):
    """x + W elu(dilated convolution of elu(x)). Source: SoundStream (Zeghidour et al. 2021), section III.A."""

    def __init__(self, width: int, window: int, dilation: int, *, rngs: nnx.Rngs, causal: bool):
        self.near = TimeConv(
            width, width, rngs=rngs, window=window, dilation=dilation, causal=causal
        )
        self.out = TimeConv(width, width, rngs=rngs, causal=causal)

    def __call__(self, x_btc: jax.Array, past: Past) -> jax.Array:
        return x_btc + self.out(jax.nn.elu(self.near(jax.nn.elu(x_btc), past)), past)


class Units(nnx.Module):
    """A residual unit for each dilation, one after the other."""

    def __init__(self, width: int, window: int, dilations: Sequence[int], **kind):
        for i, dilation in enumerate(dilations):
            setattr(self, f"unit{i}", ResidualUnit(width, window, dilation, **kind))
        self.count = len(dilations)

    def __call__(self, x_btc: jax.Array, past: Past) -> jax.Array:
        for i in range(self.count):
            x_btc = getattr(self, f"unit{i}")(x_btc, past)
        return x_btc


def widths(first: int, stages: int, widest: int) -> list[int]:
    """Features after 0, 1, ... stages: doubled by each, up to `widest`."""
    return [min(first * 2**i, max(widest, first)) for i in range(stages + 1)]


class TimeEncoder(nnx.Module):
    """[B, T, d_in] -> [B, T / prod(strides), d_out].

    A convolution; for each stride residual units and a strided convolution with a window of two strides, which doubles
    the width; a last convolution.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        strides: Sequence[int],
        width: int,
        widest: int,
        window: int,
        dilations: Sequence[int],
        causal: bool,
        rngs: nnx.Rngs,
    ):
        kind = {"rngs": rngs, "causal": causal}
        features = widths(width, len(strides), widest)
        self.into = TimeConv(d_in, width, window=window, **kind)
        for i, stride in enumerate(strides):
            setattr(self, f"units{i}", Units(features[i], window, dilations, **kind))
            down = TimeConv(features[i], features[i + 1], window=2 * stride, stride=stride, **kind)
            setattr(self, f"down{i}", down)
        self.out = TimeConv(features[-1], d_out, window=3, **kind)
        self.stages = len(strides)

    def __call__(self, x_btc: jax.Array, past: Past) -> jax.Array:
        x_btc = self.into(x_btc, past)
        for i in range(self.stages):
            x_btc = getattr(self, f"units{i}")(x_btc, past)
            x_btc = getattr(self, f"down{i}")(jax.nn.elu(x_btc), past)
        return self.out(jax.nn.elu(x_btc), past)


class TimeDecoder(nnx.Module):
    """[B, n, d_in] -> [B, n * prod(strides), d_out]: `TimeEncoder` backwards, with the same settings."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        strides: Sequence[int],
        width: int,
        widest: int,
        window: int,
        dilations: Sequence[int],
        causal: bool,
        rngs: nnx.Rngs,
    ):
        kind = {"rngs": rngs, "causal": causal}
        features = widths(width, len(strides), widest)
        self.into = TimeConv(d_in, features[-1], window=window, **kind)
        for i, stride in enumerate(strides):
            setattr(self, f"up{i}", TimeUp(features[i + 1], features[i], stride, **kind))
            setattr(self, f"units{i}", Units(features[i], window, dilations, **kind))
        self.out = TimeConv(width, d_out, window=window, **kind)
        self.stages = len(strides)

    def __call__(self, x_bnc: jax.Array, past: Past) -> jax.Array:
        x_bnc = self.into(x_bnc, past)
        for i in reversed(range(self.stages)):
            x_bnc = getattr(self, f"up{i}")(jax.nn.elu(x_bnc), past)
            x_bnc = getattr(self, f"units{i}")(x_bnc, past)
        return self.out(jax.nn.elu(x_bnc), past)


def check_strides(strides: Sequence[int], length: int) -> str | None:
    """What is wrong with strides for rows of `length` places; None = nothing."""
    if not strides or min(strides) < 1:
        return f"strides={tuple(strides)}: at least one, each 1 or more"
    if length % math.prod(strides):
        return f"length={length}: not a multiple of the strides' product {math.prod(strides)}"
    return None
