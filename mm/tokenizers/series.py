"""Series of numbers over time, and poses, as codes: convolutions, or an MLP over the whole row.

Rows are standardised by statistics that are part of the settings, hence of the artefact.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from mm.errors import UserError
from mm.models.time_convolutions import Past, TimeDecoder, TimeEncoder, check_strides
from mm.space import Grid, Vector
from mm.tasks import Terms
from mm.tokenizers import measures
from mm.tokenizers.memcodes import Bottleneck, BottleneckMlp


def check_statistics(features: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises UserError for statistics that are not those of such rows."""
    if {len(mean), len(std)} - {1, features} or min(std) <= 0:
        raise UserError(
            f"config.task.network: mean={mean}, std={std}: one each or one per feature ({features}), std above 0"
        )


def statistics(rows: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of each feature of rows float[n, ..., F]; a feature that never changes has a deviation of 1."""
    flat = np.asarray(rows, np.float64).reshape(-1, rows.shape[-1])
    std = flat.std(0)
    return tuple(flat.mean(0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


@dataclasses.dataclass(kw_only=True, slots=True)
class SeriesAutoencoder:
    """Settings of the convolutional network for rows float32[length, features].

    Attributes:
      mean, std: of training rows: one each, or one per feature (`statistics`).
      strides: their product is the stretch that one code stands for.
      width: features at the row's own rate; each stride doubles them, up to `widest`.
      window: of the convolutions. dilations: of the residual units before each stride.
      latent: features of a latent; the quantizer's width.
      causal: whether nothing depends on what comes later.
    """

    length: int = 32
    features: int = 6
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    strides: tuple[int, ...] = (2, 2)
    width: int = 64
    widest: int = 256
    window: int = 5
    dilations: tuple[int, ...] = (1, 2)
    latent: int = 16
    causal: bool = False

    def validate(self) -> None:
        """Raises UserError for stretches that do not tile a row, or statistics of other rows."""
        if wrong := check_strides(self.strides, self.length):
            raise UserError(f"config.task.network.{wrong}; change one")
        if self.window % 2 == 0:
            raise UserError(f"config.task.network.window={self.window}: use an odd number")
        check_statistics(self.features, self.mean, self.std)

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        return jax.ShapeDtypeStruct((self.length, self.features), np.float32)

    @property
    def grid(self) -> Grid:
        return Grid(t=self.length // math.prod(self.strides))

    def build(self, rngs: nnx.Rngs) -> "SeriesNetwork":
        return SeriesNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """See `measures.of_numbers`."""
        return measures.of_numbers(raw, decoded)


@dataclasses.dataclass(kw_only=True, slots=True)
class PoseAutoencoder:
    """Settings of the MLP for rows float32[features], or float32[parts, features]: a row is read as a whole.

    Attributes:
      parts: 0 = rows have no such axis.
      mean, std: of training rows: one each, or one per feature (`statistics`).
      codes: how many a row has.
      latent: features of a latent; the quantizer's width.
    """

    features: int = 6
    parts: int = 0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    codes: int = 8
    latent: int = 16
    encoder: Bottleneck = dataclasses.field(
        default_factory=lambda: Bottleneck(width=256, depth=2, outer=256)
    )
    decoder: Bottleneck = dataclasses.field(
        default_factory=lambda: Bottleneck(width=256, depth=2, outer=256)
    )

    def validate(self) -> None:
        """Raises UserError for rows without codes, or statistics of other rows."""
        if self.codes < 1 or self.parts < 0:
            raise UserError(
                f"config.task.network: codes={self.codes}, parts={self.parts}: at least 1, and 0; change one"
            )
        check_statistics(self.features, self.mean, self.std)

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        shape = (self.parts, self.features) if self.parts else (self.features,)
        return jax.ShapeDtypeStruct(shape, np.float32)

    @property
    def grid(self) -> Vector:
        """Codes without geometry."""
        return Vector(n=self.codes)

    def build(self, rngs: nnx.Rngs) -> "PoseNetwork":
        return PoseNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """See `measures.of_numbers`."""
        return measures.of_numbers(raw, decoded)


class Standardised(nnx.Module):
    """What both networks do with rows float32[B, ..., F]."""

    settings: SeriesAutoencoder | PoseAutoencoder

    def prepare(self, raw: jax.Array) -> jax.Array:
        """Raw rows -> standardised ones."""
        return (raw - jnp.array(self.settings.mean)) / jnp.array(self.settings.std)

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """`reconstruction`: `measures.smooth_l1` of standardised values; the metric `mae`: in the data's units."""
        error = out - x
        count = jnp.float32(x.size)
        return {
            "reconstruction": (measures.smooth_l1(error).sum(), count),
            "mae": (jnp.abs(error * jnp.array(self.settings.std)).sum(), count),
        }

    def render(self, out: jax.Array) -> jax.Array:
        """Standardised rows -> raw ones."""
        return out * jnp.array(self.settings.std) + jnp.array(self.settings.mean)


class SeriesNetwork(Standardised):
    """See `mm.tokenizers.autoencoder.Network`. T places make n = T / prod(strides) codes."""

    def __init__(self, settings: SeriesAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        kind = {
            "strides": s.strides, "width": s.width, "widest": s.widest, "window": s.window,
            "dilations": s.dilations, "causal": s.causal, "rngs": rngs,
        }  # fmt: skip
        self.encoder = TimeEncoder(s.features, s.latent, **kind)
        self.decoder = TimeDecoder(s.latent, s.features, **kind)

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, T, F] -> latents float32[B, n, latent]."""
        return self.encoder(x, Past())

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, n, latent] -> float32[B, T, F]."""
        return self.decoder(vectors_bnd, Past())


class PoseNetwork(Standardised):
    """See `mm.tokenizers.autoencoder.Network`."""

    def __init__(self, settings: PoseAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        coded = s.codes * s.latent
        self.encoder = BottleneckMlp(s.encoder, s.row.size, coded, rngs=rngs)
        self.decoder = BottleneckMlp(s.decoder, coded, s.row.size, rngs=rngs)

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, ..., F] -> latents float32[B, codes, latent]."""
        return self.encoder(x.reshape(len(x), -1)).reshape(-1, *self._codes)

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, codes, latent] -> float32[B, ..., F]."""
        rows = self.decoder(vectors_bnd.reshape(len(vectors_bnd), -1))
        return rows.reshape(-1, *self.settings.row.shape)

    @property
    def _codes(self) -> tuple[int, int]:
        return self.settings.grid.size, self.settings.latent
