"""Small encoders, one per modality, from raw rows to a vector: what a paper's experiment on toys needs."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from mm.errors import UserError
from mm.models.attention import Mask
from mm.models.layers import Block, LayerNorm, Linear, run_stack, sincos_1d, sincos_2d, stack


@dataclasses.dataclass(kw_only=True, slots=True)
class Dense:
    """A perceptron on flattened rows; without hidden layers one affine map.

    Attributes:
      hidden: widths.
      cone: length of a random vector that all embeddings begin with: a narrow cone, as in deep networks.
    """

    hidden: tuple[int, ...] = ()
    cone: float = 0.0

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "DenseNetwork":
        return DenseNetwork(self, math.prod(shape), width, rngs=rngs)


class DenseNetwork(nnx.Module):
    """See `Dense`: rows [B, ...] -> [B, width]."""

    def __init__(self, settings: Dense, d_in: int, width: int, *, rngs: nnx.Rngs):
        sizes = (d_in, *settings.hidden, width)
        self.layers = len(sizes) - 1
        for i in range(self.layers):
            setattr(self, f"layer{i}", Linear(sizes[i], sizes[i + 1], rngs=rngs))
        if settings.cone:
            towards = jax.random.normal(rngs.params(), (width,)) * settings.cone / width**0.5
            getattr(self, f"layer{self.layers - 1}").bias[...] = towards

    def __call__(self, rows: jax.Array) -> jax.Array:
        x = rows.reshape(len(rows), -1).astype(jnp.float32)
        for i in range(self.layers):
            x = getattr(self, f"layer{i}")(x if i == 0 else jax.nn.gelu(x))
        return x


@dataclasses.dataclass(kw_only=True, slots=True)
class Table:
    """A vector per value of an integer column."""

    size: int

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "TableNetwork":
        return TableNetwork(self, width, rngs=rngs)


class TableNetwork(nnx.Module):
    """See `Table`: int rows [B] -> [B, width]."""

    def __init__(self, settings: Table, width: int, *, rngs: nnx.Rngs):
        self.rows = nnx.Param(jax.random.normal(rngs.params(), (settings.size, width)) / width**0.5)

    def __call__(self, rows: jax.Array) -> jax.Array:
        return self.rows[...][rows.reshape(-1)]


@dataclasses.dataclass(kw_only=True, slots=True)
class Tied:
    """The encoder of another column, which is told of this one by a learned vector added to its rows.

    Attributes:
      to: that column; its rows have the same shape.
    """

    to: str

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "TiedNetwork":
        return TiedNetwork(math.prod(shape))


class TiedNetwork(nnx.Module):
    """See `Tied`: rows [B, ...] -> rows [B, n] for the other encoder."""

    def __init__(self, width: int):
        self.vector = nnx.Param(jnp.zeros(width))

    def __call__(self, rows: jax.Array) -> jax.Array:
        return rows.reshape(len(rows), -1) + self.vector[...]


@dataclasses.dataclass(kw_only=True, slots=True)
class Given:
    """Rows are embeddings already, such as features of a frozen tower: nothing is learned."""

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "GivenNetwork":
        if math.prod(shape) != width:
            raise UserError(f"config.task.width={width}: given embeddings have {math.prod(shape)}")
        return GivenNetwork()


class GivenNetwork(nnx.Module):
    """See `Given`: rows [B, ...] -> [B, width]."""

    def __call__(self, rows: jax.Array) -> jax.Array:
        return rows.reshape(len(rows), -1).astype(jnp.float32)


@dataclasses.dataclass(kw_only=True, slots=True)
class Patches:
    """A small vision transformer: pictures [B, H, W, C] -> a vector per patch.

    Attributes:
      side: of a patch in pixels. hidden: width of the layers.
    """

    side: int = 8
    hidden: int = 64
    layers: int = 2
    heads: int = 4

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "TokenNetwork":
        height, across = (n // self.side for n in shape[:2])
        embed = Linear(self.side**2 * math.prod(shape[2:]), self.hidden, rngs=rngs)
        position = sincos_2d(height, across, self.hidden)
        return TokenNetwork(self, embed, position, width, rngs=rngs)

    def tokens(self, embed: Any, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, N, hidden] and bool[B, N], which of them exist."""
        p = self.side
        x = rearrange(_picture(rows), "b (h p) (w q) c -> b (h w) (p q c)", p=p, q=p)
        return embed(x), jnp.ones(x.shape[:2], bool)


@dataclasses.dataclass(kw_only=True, slots=True)
class Conv:
    """Convolutions of 3 x 3 in steps of 2: pictures [B, H, W, C] -> a vector. What few examples teach best.

    Attributes:
      channels: of each layer; every one halves the picture.
    """

    channels: tuple[int, ...] = (32, 64, 64)

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "ConvNetwork":
        return ConvNetwork(self, shape, width, rngs=rngs)


class ConvNetwork(nnx.Module):
    """See `Conv`. As matrix products of gathered neighbours, which many networks at once (`vmap`) compute as fast as one."""

    def __init__(self, settings: Conv, shape: tuple[int, ...], width: int, *, rngs: nnx.Rngs):
        channels = (math.prod(shape[2:]), *settings.channels)
        self.layers = len(settings.channels)
        for i in range(self.layers):
            setattr(self, f"layer{i}", Linear(9 * channels[i], channels[i + 1], rngs=rngs))
            setattr(self, f"norm{i}", LayerNorm(channels[i + 1]))
        height, across = (-(-n // 2**self.layers) for n in shape[:2])
        self.head = Linear(height * across * channels[-1], width, rngs=rngs)

    def __call__(self, rows: jax.Array) -> jax.Array:
        x = _picture(rows)
        for i in range(self.layers):
            x = getattr(self, f"norm{i}")(getattr(self, f"layer{i}")(_neighbours(x)))
            x = jax.nn.gelu(x)
        return self.head(x.reshape(len(x), -1))


def _picture(rows: jax.Array) -> jax.Array:
    """[B, H, W] or [B, H, W, C], uint8 or in [-1, 1] -> float32[B, H, W, C] in [-1, 1]."""
    x = rows.astype(jnp.float32) / 128 - 1 if rows.dtype == jnp.uint8 else rows
    return x if x.ndim == 4 else x[..., None]


def _neighbours(x: jax.Array) -> jax.Array:
    """Every second place with the 8 around it: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), 9 C]."""
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, across = x.shape[1] - 2, x.shape[2] - 2
    parts = [x[:, i : i + height : 2, j : j + across : 2] for i in range(3) for j in range(3)]
    return jnp.concatenate(parts, -1)


@dataclasses.dataclass(kw_only=True, slots=True)
class Words:
    """A small text transformer: ids int[B, N] (0 = no word) -> a vector per word."""

    vocabulary: int
    hidden: int = 64
    layers: int = 2
    heads: int = 4

    def build(self, shape: tuple[int, ...], width: int, rngs: nnx.Rngs) -> "TokenNetwork":
        embed = TableNetwork(Table(size=self.vocabulary), self.hidden, rngs=rngs)
        return TokenNetwork(self, embed, sincos_1d(shape[0], self.hidden), width, rngs=rngs)

    def tokens(self, embed: Any, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B, N, hidden] and bool[B, N], which of them exist."""
        return embed(rows).reshape(*rows.shape, -1) * self.hidden**0.5, rows > 0


class TokenNetwork(nnx.Module):
    """See `Patches` and `Words`: rows -> ([B, N, width], bool[B, N])."""

    def __init__(
        self, settings: Any, embed: Any, position: jax.Array, width: int, *, rngs: nnx.Rngs
    ):
        self.settings, self.embed = settings, embed
        self.position = nnx.Param(position)
        block = lambda r: Block(settings.hidden, settings.heads, rngs=r)
        self.blocks = stack(block, settings.layers, rngs) if settings.layers else None
        self.norm = LayerNorm(settings.hidden)
        self.head = Linear(settings.hidden, width, rngs=rngs)

    def __call__(self, rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, there = self.settings.tokens(self.embed, rows)
        x = x + self.position[...]
        if self.blocks is not None:
            x = run_stack(self.blocks, x, Mask.of_keys(there), scan=False)
        return self.head(self.norm(x)), there


Encoder = Any
"""Settings with `build(shape of a row, width, rngs) -> module`: rows -> [B, width], or tokens [B, N, width] and which exist."""
