"""A small classifier over float maps [B, H, W, C].

A pure function of its parameters: without batch statistics a prediction does not depend on what
else is in the batch, and a file of weights is the whole truth. Sizes suit a CPU.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from flax import nnx

from mm.models.layers import LayerNorm, Linear, run_stack, stack

Shape = tuple[int, int, int]


@dataclasses.dataclass(kw_only=True, slots=True)
class ConvNet:
    """A residual convolutional network.

    Attributes:
      widths: channels per stage; the stem halves height and width, and so does every further stage.
      depths: residual blocks per stage.
      stem: side of the first convolution's window.
      pool_width: whether features are averaged over the columns too, not over the rows alone.
        Columns that mean something by their place (frequencies) must be told apart.
    """

    widths: tuple[int, ...] = (32, 64, 96)
    depths: tuple[int, ...] = (0, 1, 1)
    stem: int = 5
    pool_width: bool = True

    def build(self, shape: Shape, classes: int, rngs: nnx.Rngs) -> "ConvNetwork":
        return ConvNetwork(self, shape, classes, rngs=rngs)


class Conv(nnx.Module):
    """A zero-padded convolution with an odd window, as one matrix product over gathered patches.

    XLA on CPU computes the gradients of a convolution with few channels on one core; as a product
    the same sum is several times faster there.
    """

    def __init__(self, d_in: int, d_out: int, *, rngs: nnx.Rngs, window: int = 3, stride: int = 1):
        fan_in = window * window * d_in
        std = math.sqrt(2 / fan_in)  # He et al. 2015, equation 10: variance survives a ReLU
        self.kernel = nnx.Param(std * jax.random.normal(rngs.params(), (fan_in, d_out)))
        self.bias = nnx.Param(jnp.zeros(d_out))
        self.window, self.stride = window, stride

    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """[B, H, W, d_in] -> [B, ceil(H / stride), ceil(W / stride), d_out]."""
        _, h, w, _ = x_bhwc.shape
        edge = self.window // 2
        x_bhwc = jnp.pad(x_bhwc, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
        shifts = [(i, j) for i in range(self.window) for j in range(self.window)]
        patches = [x_bhwc[:, i : i + h : self.stride, j : j + w : self.stride] for i, j in shifts]
        columns = jnp.concatenate(patches, axis=-1)
        y = columns.reshape(-1, columns.shape[-1]) @ self.kernel[...] + self.bias[...]
        return y.reshape(*columns.shape[:-1], -1)


class ConvStage(nnx.Module):
    """A strided convolution, then residual blocks x + conv(relu(norm x)).

    The blocks have equal shapes, so they are stacked.
    """

    def __init__(self, d_in: int, width: int, depth: int, *, rngs: nnx.Rngs, window: int = 3):
        self.entry = Conv(d_in, width, rngs=rngs, window=window, stride=2)
        self.blocks = stack(lambda r: ConvBlock(width, rngs=r), depth, rngs) if depth else None

    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        x_bhwc = self.entry(x_bhwc)
        # Unrolled: few blocks compile fast, and a scan costs more per step on CPU.
        return x_bhwc if self.blocks is None else run_stack(self.blocks, x_bhwc, scan=False)


class ConvBlock(nnx.Module):
    """x + conv(relu(norm x))."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(width)
        self.conv = Conv(width, width, rngs=rngs)

    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        return x_bhwc + self.conv(jax.nn.relu(self.norm(x_bhwc)))


class ConvNetwork(nnx.Module):
    """See `ConvNet`."""

    def __init__(self, settings: ConvNet, shape: Shape, classes: int, *, rngs: nnx.Rngs):
        _, width, channels = shape
        last = channels
        for i, (features, depth) in enumerate(zip(settings.widths, settings.depths, strict=True)):
            window = settings.stem if i == 0 else 3
            setattr(self, f"stage{i}", ConvStage(last, features, depth, rngs=rngs, window=window))
            width, last = math.ceil(width / 2), features
        self.stages, self.pool_width = len(settings.widths), settings.pool_width
        self.norm = LayerNorm(last)
        self.head = Linear(last if settings.pool_width else width * last, classes, rngs=rngs)

    def __call__(self, x_bhwc: jax.Array) -> jax.Array:
        """float32[B, H, W, C] -> logits float32[B, classes]."""
        for i in range(self.stages):
            x_bhwc = getattr(self, f"stage{i}")(jax.nn.relu(x_bhwc) if i else x_bhwc)
        x_bhwc = jax.nn.relu(self.norm(x_bhwc))
        pooled = x_bhwc.mean((1, 2) if self.pool_width else 1)
        return self.head(pooled.reshape(pooled.shape[0], -1))
