"""Pictures and maps as a grid of codes, by strided residual convolutions: any size that they halve, with the same weights.

Rows are pixels (colour pictures, drawings of edges) or values (depth, normals, flow).
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.models.convolutions import ConvDecoder, ConvEncoder, check_sides
from mm.space import Grid
from mm.tasks import Terms
from mm.tokenizers import arrays, measures

ROWS = {"pixels": np.uint8, "values": np.float32}


@dataclasses.dataclass(kw_only=True, slots=True)
class ConvAutoencoder:
    """Settings of the network for rows on a grid.

    Attributes:
      rows: what they are: `pixels` uint8[height, width, channels], or `values` float32[height, width, channels]. One
        channel has no axis.
      mean, std: of the values in training rows: one each, or one per channel.
      widths: features of each stage, which halves height and width. depth: residual blocks of a stage.
      groups: of the norms; divides each width.
      latent: features of a latent; the quantizer's width.
    """

    rows: str = "pixels"
    height: int = 64
    width: int = 64
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    widths: tuple[int, ...] = (32, 64, 128)
    depth: int = 1
    groups: int = 8
    latent: int = 16

    def validate(self) -> None:
        """Raises UserError for sizes that stages do not halve, or rows that there are not."""
        at = "config.task.network"
        if wrong := check_sides(self.height, self.width, self.widths, self.depth, self.groups):
            raise UserError(f"{at}.{wrong}; change one")
        check_values(self.rows, self.channels, self.mean, self.std)

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        last = (self.channels,) if self.channels > 1 else ()
        return jax.ShapeDtypeStruct((self.height, self.width, *last), ROWS[self.rows])

    @property
    def grid(self) -> Grid:
        side = 2 ** len(self.widths)
        return Grid(h=self.height // side, w=self.width // side)

    def build(self, rngs: nnx.Rngs) -> "ConvImageNetwork":
        return ConvImageNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """See `measures.of_pictures`."""
        return measures.of_pictures(raw, decoded, self.channels)

    def read_file(self, path: Path) -> np.ndarray:
        """A picture, cut to the row's form, or the .npy array of what is none. Raises UserError: as they do."""
        return arrays.read_picture_or_array(path, self.row, self.channels)

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """A row -> a PNG, or an .npy of what is no picture; returns its path."""
        return arrays.write_picture_or_array(raw, stem)


class PictureNetwork(nnx.Module):
    """What networks of pictures and of videos do with rows float32[B, ..., C]: pixels in [-1, 1], values standardised."""

    settings: Any

    def prepare(self, raw: jax.Array) -> jax.Array:
        """Raw rows -> float32[B, ..., C], also where one channel has no axis."""
        channels = self.settings.channels
        return scaled(raw if channels > 1 else raw[..., None], self.settings)

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """See `picture_terms`."""
        return picture_terms(out, x, self.settings)

    def render(self, out: jax.Array) -> jax.Array:
        """`decode`'s output -> raw rows."""
        return unscaled(out, self.settings).reshape(-1, *self.settings.row.shape)


class ConvImageNetwork(PictureNetwork):
    """See `mm.tokenizers.autoencoder.Network`. Rows are float32[B, H, W, C]."""

    def __init__(self, settings: ConvAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        kind = {
            "widths": s.widths, "steps": (1,) * len(s.widths), "span": 1, "depth": s.depth,
            "groups": s.groups, "rngs": rngs,
        }  # fmt: skip
        self.encoder = ConvEncoder(s.channels, s.latent, **kind)
        self.decoder = ConvDecoder(s.latent, s.channels, **kind)

    def encode(self, x: jax.Array) -> jax.Array:
        """Prepared rows -> latents float32[B, h * w, latent]."""
        return self.encoder(x[:, None]).reshape(len(x), -1, self.settings.latent)

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, h * w, latent] -> float32[B, H, W, C]."""
        grid = self.settings.grid
        return self.decoder(vectors_bnd.reshape(-1, 1, grid.h, grid.w, self.settings.latent))[:, 0]


def check_values(rows: str, channels: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Raises UserError for rows that there are not, or statistics that are not theirs."""
    at = "config.task.network"
    if rows not in ROWS:
        raise UserError(f"{at}.rows={rows!r}: use one of {', '.join(ROWS)}")
    if rows == "pixels" and channels not in (1, 3):
        raise UserError(f"{at}.channels={channels}: pixels have 1 or 3; change it")
    if {len(mean), len(std)} - {1, channels} or min(std) <= 0:
        raise UserError(
            f"{at}: mean={mean}, std={std}: one each or one per channel ({channels}), std above 0"
        )


def scaled(raw: jax.Array, settings: Any) -> jax.Array:
    """Raw [..., C] -> float32: pixels in [-1, 1], values with mean 0 and deviation 1."""
    x = raw.astype(jnp.float32)
    if settings.rows == "pixels":
        return x / 127.5 - 1
    return (x - jnp.array(settings.mean)) / jnp.array(settings.std)


def unscaled(out: jax.Array, settings: Any) -> jax.Array:
    """The inverse of `scaled`, in the raw dtype."""
    if settings.rows == "pixels":
        return jnp.round(jnp.clip((out + 1) * 127.5, 0, 255)).astype(jnp.uint8)
    return out * jnp.array(settings.std) + jnp.array(settings.mean)


def picture_terms(out: jax.Array, x: jax.Array, settings: Any) -> Terms:
    """Terms of pictures or values float32[..., H, W, C].

    `reconstruction`: squared error; `absolute`: absolute error. Of pixels the metrics `psnr` (dB, per row) and, of single
    pictures of 11 pixels or more, `ssim`. Of values the metric `mae`, in their unit, and, of several channels,
    `cosine_distance`: 1 - cosine between vectors of the raw values, where these are not zero.
    """
    error = out - x
    terms = {
        "reconstruction": (jnp.square(error).sum(), jnp.float32(x.size)),
        "absolute": (jnp.abs(error).sum(), jnp.float32(x.size)),
    }
    if settings.rows == "pixels":
        a, b = jnp.clip(out, -1, 1) / 2 + 0.5, x / 2 + 0.5
        metric = measures.psnr if x.ndim == 4 else measures.frame_psnr
        terms["psnr"] = measures.summed(metric(a, b))
        if x.ndim == 4 and min(x.shape[1:3]) >= measures.WINDOW:
            terms["ssim"] = measures.summed(measures.ssim(a, b))
        return terms
    terms["mae"] = (jnp.abs(error * jnp.array(settings.std)).sum(), jnp.float32(x.size))
    if settings.channels > 1:
        angle = 1 - measures.cosine(unscaled(out, settings), unscaled(x, settings))
        terms["cosine_distance"] = measures.summed(angle)
    return terms
