"""Images as a small grid of codes: overlapping windows, one codebook, and a dense decoder.

The grid is coarse and each code sees only its own place and a margin around it, on purpose: a model that must
predict the codes learns most easily from few of them, each of which says something about one place. The decoder
sees all of them. Its layers are dense over the whole grid: on images this small, weights that are not shared
between places cost a tenth of transformer blocks and reconstruct better after the same time on a CPU.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.models.layers import LayerNorm, Linear, run_stack, stack
from mm.space import Grid
from mm.tasks import Terms
from mm.tokenizers import files


@dataclasses.dataclass(kw_only=True, slots=True)
class ImageAutoencoder:
    """Settings of the network for small images.

    Attributes:
      channels: 1 for grey rows uint8[height, width], 3 for colour uint8[height, width, 3].
      patch: side in pixels of the square that one code stands for; divides height and width.
      margin: pixels around its square that a code sees.
      latent: features of a latent; the quantizer's width.
      hidden: width of the encoder (per place). dense: width of the decoder (whole grid).
      encoder_layers, decoder_layers: residual layers of each.
      framing: how a user's picture is brought to the form of the training data.
    """

    height: int = 28
    width: int = 28
    channels: int = 1
    patch: int = 7
    margin: int = 3
    latent: int = 16
    hidden: int = 128
    dense: int = 512
    encoder_layers: int = 1
    decoder_layers: int = 2
    framing: files.Framing = dataclasses.field(default_factory=files.Framing)

    def validate(self) -> None:
        """Raises UserError for a patch that does not tile the image, or colours that cannot be."""
        if self.channels not in (1, 3) or (self.channels == 3 and self.framing.box):
            raise UserError(
                f"config.task.network.channels={self.channels}: 1 (grey) or 3 (colour, which needs "
                "framing.box=0: ink has no colour); change it"
            )
        if self.height % self.patch or self.width % self.patch:
            raise UserError(
                f"config.task.network.patch={self.patch}: does not divide {self.height} x {self.width} pixels; change one"
            )

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        colour = (self.channels,) if self.channels > 1 else ()
        return jax.ShapeDtypeStruct((self.height, self.width, *colour), np.uint8)

    @property
    def grid(self) -> Grid:
        return Grid(h=self.height // self.patch, w=self.width // self.patch)

    def build(self, rngs: nnx.Rngs) -> "ImageNetwork":
        return ImageNetwork(self, rngs=rngs)

    def read_file(self, path: Path) -> np.ndarray:
        """A user's picture -> a raw row. Raises UserError: see `mm.tokenizers.files.read_picture`."""
        if not self.framing.box:
            return files.fitted(files.open_picture(path), self.row.shape[:2], self.channels)
        return files.frame(files.read_picture(path), self.row.shape, self.framing, path)

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """A raw row -> a PNG, enlarged to be looked at; returns its path."""
        return files.write_picture(raw, stem)


class Residual(nnx.Module):
    """x + W gelu(norm x)."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(width)
        self.out = Linear(width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.out(jax.nn.gelu(self.norm(x)))


class ImageNetwork(nnx.Module):
    """See `mm.tokenizers.autoencoder.Network`. Raw rows are uint8[B, H, W] or [B, H, W, C].

    Pixels are Bernoulli shares of ink (of light, in each colour).
    """

    def __init__(self, settings: ImageAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.grid, self.patch, self.margin, self.pixels = s.grid, s.patch, s.margin, s.row.shape
        seen = s.channels * (s.patch + 2 * s.margin) ** 2
        self.window_in = Linear(seen, s.hidden, rngs=rngs)
        self.place = nnx.Param(0.02 * jax.random.normal(rngs.params(), (s.grid.size, s.hidden)))
        self.encoder = stack(lambda r: Residual(s.hidden, rngs=r), s.encoder_layers, rngs)
        self.encoder_norm = LayerNorm(s.hidden)
        self.latent_out = Linear(s.hidden, s.latent, rngs=rngs)
        self.latent_in = Linear(s.grid.size * s.latent, s.dense, rngs=rngs)
        self.decoder = stack(lambda r: Residual(s.dense, rngs=r), s.decoder_layers, rngs)
        self.decoder_norm = LayerNorm(s.dense)
        self.pixels_out = Linear(s.dense, s.channels * s.height * s.width, rngs=rngs)

    def prepare(self, raw: jax.Array) -> jax.Array:
        """uint8[B, ...] -> float32[B, ...] in [0, 1]."""
        return raw.astype(jnp.float32) / 255

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, H, W] or [B, H, W, C] -> latents float32[B, h * w, latent]."""
        h_bnd = self.window_in(windows(x, self.patch, self.margin)) + self.place[...]
        return self.latent_out(jax.nn.gelu(self.encoder_norm(run_stack(self.encoder, h_bnd))))

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, h * w, latent] -> logits of ink, float32 like `prepare`'s."""
        h_bd = run_stack(self.decoder, self.latent_in(vectors_bnd.reshape(len(vectors_bnd), -1)))
        return self.pixels_out(jax.nn.gelu(self.decoder_norm(h_bd))).reshape(-1, *self.pixels)

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """`reconstruction`: cross-entropy in nats per pixel; `mse`: mean squared error of pixels in [0, 1], a metric."""
        entropy = optax.sigmoid_binary_cross_entropy(out, x)
        error = jnp.square(jax.nn.sigmoid(out) - x)
        return {
            name: (v.sum(), jnp.float32(v.size))
            for name, v in {"reconstruction": entropy, "mse": error}.items()
        }

    def render(self, out: jax.Array) -> jax.Array:
        """Logits -> uint8, raw rows."""
        return jnp.round(jax.nn.sigmoid(out) * 255).astype(jnp.uint8)


def windows(x: jax.Array, patch: int, margin: int) -> jax.Array:
    """Overlapping square windows, zero beyond the image.

    Args:
      x: [B, H, W] or [B, H, W, C].

    Returns:
      [B, (H / patch) * (W / patch), (patch + 2 * margin)^2 * C], row-major in places, pixels, colours.
    """
    b, h, w = x.shape[:3]
    side = patch + 2 * margin
    x = jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), *[(0, 0)] * (x.ndim - 3)))
    rows = jnp.stack([x[:, i : i + side] for i in range(0, h, patch)], axis=1)
    cells = jnp.stack([rows[:, :, :, j : j + side] for j in range(0, w, patch)], axis=2)
    return cells.reshape(b, (h // patch) * (w // patch), -1)
