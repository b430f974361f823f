"""Convolutions over pictures and videos, x float32[B, T, H, W, C]: a picture is a video of one frame.

Causal in time: before the first frame stands the first frame, in every layer. So the first frame is coded by itself, as
the picture that it is; a later one sees those before it; and a video that stands still has the same codes at all times.
Norms are over a frame. No shape of a weight depends on how many frames or pixels there are.

Source: MAGVIT-v2 (Yu et al. 2023), section 3.2.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from mm.models.layers import run_stack, stack


class SpaceTimeConv(nnx.Module):
    """[B, T, H, W, d_in] -> [B, 1 + (T - 1) / steps, H / stride, W / stride, d_out].

    Output j sees frames (j * steps - span + 1) .. j * steps, in windows of `window` x `window` pixels, with zeros beyond a
    frame's edges. Written as a convolution of pictures whose channels are those of `span` frames: the same sums as a
    convolution over three axes.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        rngs: nnx.Rngs,
        span: int = 1,
        steps: int = 1,
        window: int = 3,
        stride: int = 1,
    ):
        self.conv = nnx.Conv(
            span * d_in, d_out, (window, window), strides=stride, padding="VALID", rngs=rngs
        )
        self.span, self.steps, self.edge = span, steps, window - stride

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        b, t, *_ = x_bthwc.shape
        count = 1 + (t - 1) // self.steps
        if self.span > 1:
            still = jnp.repeat(x_bthwc[:, :1], self.span - 1, axis=1)
            x_bthwc = jnp.concatenate([still, x_bthwc], axis=1)
        last = (count - 1) * self.steps + 1
        frames = [x_bthwc[:, i : i + last : self.steps] for i in range(self.span)]
        pictures = jnp.concatenate(frames, axis=-1).reshape(-1, *x_bthwc.shape[2:4], self.span * x_bthwc.shape[4])  # fmt: skip
        low, high = self.edge // 2, self.edge - self.edge // 2
        y = self.conv(jnp.pad(pictures, ((0, 0), (low, high), (low, high), (0, 0))))
        return y.reshape(b, count, *y.shape[1:])


class Up(nnx.Module):
    """[B, T, H, W, d_in] -> [B, 1 + (T - 1) * steps, H * stride, W * stride, d_out].

    A convolution makes `steps` frames of stride x stride pixels at once for each place; of the first frame, which stands
    for itself alone, the last is kept.
    """

    def __init__(
        self, d_in: int, d_out: int, *, rngs: nnx.Rngs, span: int, steps: int, stride: int
    ):
        self.conv = SpaceTimeConv(d_in, steps * stride**2 * d_out, rngs=rngs, span=span)
        self.steps, self.stride = steps, stride

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        s, n = self.steps, self.stride
        y = rearrange(
            self.conv(x_bthwc), "b t h w (s i j c) -> b (t s) (h i) (w j) c", s=s, i=n, j=n
        )
        return y[:, s - 1 :]


class FrameNorm(nnx.Module):
    """Group norm of each frame alone, then SiLU."""

    def __init__(self, width: int, groups: int, *, rngs: nnx.Rngs):
        self.norm = nnx.GroupNorm(width, num_groups=groups, rngs=rngs)

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        pictures = x_bthwc.reshape(-1, *x_bthwc.shape[2:])
        return jax.nn.silu(self.norm(pictures)).reshape(x_bthwc.shape)


class ConvBlock(nnx.Module):
    """x + conv(silu(norm(conv(silu(norm x))))), the second over `span` frames."""

    def __init__(self, width: int, *, rngs: nnx.Rngs, span: int, groups: int):
        self.norm1 = FrameNorm(width, groups, rngs=rngs)
        self.conv1 = SpaceTimeConv(width, width, rngs=rngs)
        self.norm2 = FrameNorm(width, groups, rngs=rngs)
        self.conv2 = SpaceTimeConv(width, width, rngs=rngs, span=span)

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        return x_bthwc + self.conv2(self.norm2(self.conv1(self.norm1(x_bthwc))))


class ConvEncoder(nnx.Module):
    """Per stage a strided convolution with a window of two strides and `depth` blocks; norm; 1 x 1 convolution.

    Args:
      widths: features of each stage; its stride over pixels is 2.
      steps: of each stage, its stride over frames. span: frames that convolutions over time see.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        widths: Sequence[int],
        steps: Sequence[int],
        span: int,
        depth: int,
        groups: int,
        rngs: nnx.Rngs,
    ):
        last = d_in
        for i, (width, step) in enumerate(zip(widths, steps, strict=True)):
            entry = SpaceTimeConv(
                last, width, rngs=rngs, span=max(step, span if i else 1), steps=step, window=4, stride=2
            )  # fmt: skip
            setattr(self, f"entry{i}", entry)
            setattr(self, f"blocks{i}", _blocks(width, depth, span, groups, rngs))
            last = width
        self.norm = FrameNorm(last, groups, rngs=rngs)
        self.out = SpaceTimeConv(last, d_out, rngs=rngs, window=1)
        self.stages = len(widths)

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        for i in range(self.stages):
            x_bthwc = getattr(self, f"entry{i}")(x_bthwc)
            # Unrolled: few blocks compile fast, and a scan costs more per step on CPU.
            x_bthwc = run_stack(getattr(self, f"blocks{i}"), x_bthwc, scan=False)
        return self.out(self.norm(x_bthwc))


class ConvDecoder(nnx.Module):
    """`ConvEncoder` backwards, with the same settings: a convolution; per stage `depth` blocks, norm, `Up`."""

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        widths: Sequence[int],
        steps: Sequence[int],
        span: int,
        depth: int,
        groups: int,
        rngs: nnx.Rngs,
    ):
        self.into = SpaceTimeConv(d_in, widths[-1], rngs=rngs, span=span)
        for i, (width, step) in enumerate(zip(widths, steps, strict=True)):
            setattr(self, f"blocks{i}", _blocks(width, depth, span, groups, rngs))
            setattr(self, f"norm{i}", FrameNorm(width, groups, rngs=rngs))
            made = widths[i - 1] if i else d_out
            up = Up(width, made, rngs=rngs, span=span, steps=step, stride=2)
            setattr(self, f"up{i}", up)
        self.stages = len(widths)

    def __call__(self, x_bthwc: jax.Array) -> jax.Array:
        x_bthwc = self.into(x_bthwc)
        for i in reversed(range(self.stages)):
            x_bthwc = run_stack(getattr(self, f"blocks{i}"), x_bthwc, scan=False)
            x_bthwc = getattr(self, f"up{i}")(getattr(self, f"norm{i}")(x_bthwc))
        return x_bthwc


def _blocks(width: int, depth: int, span: int, groups: int, rngs: nnx.Rngs) -> ConvBlock:
    return stack(lambda r: ConvBlock(width, rngs=r, span=span, groups=groups), depth, rngs)


def check_sides(
    height: int, width: int, widths: Sequence[int], depth: int, groups: int
) -> str | None:
    """What is wrong with such stages for such pictures; None = nothing."""
    if not widths or depth < 1 or any(w % groups for w in widths):
        return f"widths={tuple(widths)}, depth={depth}, groups={groups}: groups must divide each width, and depth be 1 or more"
    if height % 2 ** len(widths) or width % 2 ** len(widths):
        return (
            f"height={height}, width={width}: not multiples of 2 for each of {len(widths)} stages"
        )
    return None
