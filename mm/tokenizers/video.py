"""Videos and volumes as codes on a (t, h, w) grid: a picture is a video of one frame, and has the same codes.

Trained weights take any number of frames, 1 + k * (product of `steps`), and any size that the stages halve:
`dataclasses.replace(settings, frames=...)`. Codes up to a time do not depend on what comes later. Volumes (voxels,
frames of depth) are rows of `values` with as many `channels` as they have: `channels=1` for one number per voxel.

Source: MAGVIT-v2 (Yu et al. 2023); see `mm.models.convolutions`.
"""

import dataclasses
import math

import jax
import numpy as np
from flax import nnx

from mm.errors import UserError
from mm.models.convolutions import ConvDecoder, ConvEncoder, check_sides
from mm.space import Grid
from mm.tokenizers import measures
from mm.tokenizers.conv_image import ROWS, PictureNetwork, check_values


@dataclasses.dataclass(kw_only=True, slots=True)
class VideoAutoencoder:
    """Settings of the network for rows [frames, height, width, channels].

    Attributes:
      rows: what they are: `pixels` uint8, or `values` float32. One channel has no axis.
      mean, std: of the values in training rows: one each, or one per channel.
      widths: features of each stage, which halves height and width.
      steps: of each stage: frames that become one. span: frames that convolutions over time see, the last one included.
      depth: residual blocks of a stage. groups: of the norms; divides each width.
      latent: features of a latent; the quantizer's width.
    """

    rows: str = "pixels"
    frames: int = 9
    height: int = 64
    width: int = 64
    channels: int = 3
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    widths: tuple[int, ...] = (32, 64, 128)
    steps: tuple[int, ...] = (1, 2, 2)
    span: int = 3
    depth: int = 1
    groups: int = 8
    latent: int = 16

    def validate(self) -> None:
        """Raises UserError for sizes and frames that the stages do not tile, or rows that there are not."""
        at = "config.task.network"
        if wrong := check_sides(self.height, self.width, self.widths, self.depth, self.groups):
            raise UserError(f"{at}.{wrong}; change one")
        if len(self.steps) != len(self.widths) or min(self.steps) < 1 or self.span < 1:
            raise UserError(
                f"{at}: steps={self.steps}, span={self.span}: one step per stage, each 1 or more; change one"
            )
        if self.frames < 1 or (self.frames - 1) % math.prod(self.steps):
            raise UserError(
                f"{at}.frames={self.frames}: not 1 and a multiple of the steps' product {math.prod(self.steps)}; change one"
            )
        check_values(self.rows, self.channels, self.mean, self.std)

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        last = (self.channels,) if self.channels > 1 else ()
        shape = (self.frames, self.height, self.width, *last)
        return jax.ShapeDtypeStruct(shape, ROWS[self.rows])

    @property
    def grid(self) -> Grid:
        side = 2 ** len(self.widths)
        times = 1 + (self.frames - 1) // math.prod(self.steps)
        return Grid(t=times, h=self.height // side, w=self.width // side)

    def build(self, rngs: nnx.Rngs) -> "VideoNetwork":
        return VideoNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """Of pixels `psnr_frame_db`, the mean over frames; of values `mae`, in their unit."""
        if self.rows == "values":
            return measures.of_numbers(raw, decoded)
        per_frame = lambda a, b: measures.frame_psnr(a / 255, b / 255)
        return {"psnr_frame_db": measures.averaged(per_frame, raw, decoded)}

    def picture(self, row: np.ndarray) -> np.ndarray:
        """The frames side by side, uint8[H, T * W] or [H, T * W, 3]; of values the first channel, darkest to brightest."""
        if self.rows == "values":
            row = row.reshape(*row.shape[:3], -1)[..., 0]
            spread = max(float(row.max() - row.min()), 1e-9)
            row = ((row - row.min()) / spread * 255).astype(np.uint8)
        return np.concatenate(list(row), axis=1)


class VideoNetwork(PictureNetwork):
    """See `mm.tokenizers.autoencoder.Network`. Rows are float32[B, T, H, W, C]; the term `psnr` is the mean over frames."""

    def __init__(self, settings: VideoAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        kind = {
            "widths": s.widths, "steps": s.steps, "span": s.span, "depth": s.depth,
            "groups": s.groups, "rngs": rngs,
        }  # fmt: skip
        self.encoder = ConvEncoder(s.channels, s.latent, **kind)
        self.decoder = ConvDecoder(s.latent, s.channels, **kind)

    def encode(self, x: jax.Array) -> jax.Array:
        """Prepared rows -> latents float32[B, t * h * w, latent]."""
        return self.encoder(x).reshape(len(x), -1, self.settings.latent)

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, t * h * w, latent] -> float32[B, T, H, W, C]."""
        grid = self.settings.grid
        return self.decoder(vectors_bnd.reshape(-1, grid.t, grid.h, grid.w, self.settings.latent))
