"""Images, feature maps, label maps and masks as a grid of codes: 4M's vision transformer before and after the codebook.

Positions are fixed waves of the grid of `image_size`, resized to the actual one, so that a trained network takes any
size that its patches tile: `dataclasses.replace(settings, height=..., width=...)` with the same weights.

Source: 4M (Mizrahi et al. 2023), 4M-21 (Bachmann et al. 2024); ViT-VQGAN (Yu et al. 2022) for `post_mlp`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from einops import rearrange
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.models.layers import Block, LayerNorm, Linear, Mlp, run_stack, sincos_2d, stack
from mm.space import Grid
from mm.tasks import Terms
from mm.tokenizers import arrays, measures
from mm.tokenizers.memcodes import Projection, check_codes

ROWS = {"pixels": np.uint8, "values": np.float32, "labels": np.int32, "mask": np.bool_}
CUBIC = -0.75  # the free parameter of cubic convolution, as PyTorch sets it


@dataclasses.dataclass(kw_only=True, slots=True)
class Transformer:
    """Blocks of one side: `width` features, `depth` blocks, `heads` of attention."""

    width: int = 768
    depth: int = 12
    heads: int = 12


PRESETS = {
    "vit_s": Transformer(width=512, depth=8, heads=8),
    "vit_b": Transformer(width=768, depth=12, heads=12),
    "vit_l": Transformer(width=1024, depth=24, heads=16),
}


def preset(name: str) -> Transformer:
    """A copy of one of `PRESETS`."""
    return dataclasses.replace(PRESETS[name])


@dataclasses.dataclass(kw_only=True, slots=True)
class ViTAutoencoder:
    """Settings of the network for rows on a grid.

    Attributes:
      rows: what they are: `pixels` uint8[height, width, channels], `values` float32[height, width, channels] (depth,
        normals, features), `labels` int32[height, width], or `mask` bool[height, width]. One channel has no axis.
      channels: of a row; of the class embedding, where rows are labels.
      labels: how many classes there are; 0 unless rows are labels.
      patch: side of the square that one place stands for; 1 for feature maps.
      image_size: side at whose grid the positions are stored.
      decoder_image_size: the decoder's; 0 = the same.
      post_mlp: x + mlp(norm x) with tanh, after the encoder's blocks and after the decoder's.
      out_conv: two ConvNeXt blocks on what is reconstructed.
      code_width, codebooks, memory: features that are coded at a place, and how; see `memcodes.Projection`.
    """

    rows: str = "pixels"
    height: int = 224
    width: int = 224
    channels: int = 3
    labels: int = 0
    patch: int = 16
    image_size: int = 224
    decoder_image_size: int = 0
    encoder: Transformer = dataclasses.field(default_factory=Transformer)
    decoder: Transformer = dataclasses.field(default_factory=Transformer)
    post_mlp: bool = True
    out_conv: bool = False
    code_width: int = 32
    codebooks: int = 1
    memory: int = 0

    def validate(self) -> None:
        """Raises UserError for patches that do not tile the rows, rows that there are not, heads that do not fit."""
        check_codes(self.code_width, self.codebooks, self.memory)
        at = "config.task.network"
        if self.rows not in ROWS or (self.rows == "labels") != (self.labels > 0):
            raise UserError(
                f"{at}.rows={self.rows!r} with labels={self.labels}: use one of {', '.join(ROWS)}; "
                "labels > 0 where rows are labels, and only there"
            )
        if self.rows == "pixels" and self.channels not in (1, 3):
            raise UserError(f"{at}.channels={self.channels}: pixels have 1 or 3; change it")
        if self.rows == "mask" and self.channels != 1:
            raise UserError(f"{at}.channels={self.channels}: a mask has 1; change it")
        for name in ("height", "width", "image_size", "decoder_image_size"):
            if getattr(self, name) % self.patch:
                raise UserError(
                    f"{at}.{name}={getattr(self, name)}: not a multiple of patch={self.patch}; change one"
                )
        for side, blocks in (("encoder", self.encoder), ("decoder", self.decoder)):
            if blocks.width % 4 or blocks.width % blocks.heads:
                raise UserError(
                    f"{at}.{side}.width={blocks.width}: must divide by 4 (positions) and by heads={blocks.heads}"
                )

    @property
    def latent(self) -> int:
        """Features of a latent: with a memory, the logits of its codes."""
        return self.memory or self.code_width

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        last = (self.channels,) if self.channels > 1 and self.rows != "labels" else ()
        return jax.ShapeDtypeStruct((self.height, self.width, *last), ROWS[self.rows])

    @property
    def limits(self) -> tuple[float, float]:
        """Least and largest value of a row."""
        return (0, self.labels - 1) if self.labels else (-np.inf, np.inf)

    @property
    def grid(self) -> Grid:
        """The codebooks are `t`."""
        return Grid(t=self.codebooks, h=self.height // self.patch, w=self.width // self.patch)

    @property
    def stored_positions(self) -> dict[str, tuple[int, int]]:
        """Of encoder and decoder: the side of the grid whose waves are stored, and their features."""
        size = self.decoder_image_size or self.image_size
        return {
            "encoder": (self.image_size // self.patch, self.encoder.width),
            "decoder": (size // self.patch, self.decoder.width),
        }

    def build(self, rngs: nnx.Rngs) -> "ViTNetwork":
        return ViTNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """Of labels `miou` and `pixel_accuracy` over the set; means over rows: of masks `iou`, of values and pixels as
        `measures.of_pictures`.
        """
        if self.rows == "labels":
            return measures.of_labels(raw, decoded, self.labels)
        if self.rows == "mask":
            return {"iou": measures.averaged(measures.intersection_over_union, raw, decoded)}
        return measures.of_pictures(raw, decoded, self.channels)

    def read_file(self, path: Path) -> np.ndarray:
        """A picture, cut to the row's form (a mask is where it is bright), or the .npy array of what is none.

        Raises UserError: as they do.
        """
        if self.rows == "mask":
            grey = jax.ShapeDtypeStruct(self.row.shape, np.uint8)
            return arrays.read_picture_or_array(path, grey, self.channels) > 127
        return arrays.read_picture_or_array(path, self.row, self.channels)

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """A row -> a PNG, or an .npy of what is no picture; returns its path."""
        return arrays.write_picture_or_array(
            np.uint8(255) * raw if self.rows == "mask" else raw, stem
        )


class PostMlp(nnx.Module):
    """x + down(tanh(up(norm x))), float32."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = LayerNorm(width)
        self.up = Linear(width, 4 * width, rngs=rngs)
        self.down = Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x + self.down(jnp.tanh(self.up(self.norm(x))))


class ConvNeXtBlock(nnx.Module):
    """x + gamma * mlp(norm(7 x 7 depthwise convolution of x)), x float32[B, H, W, C].

    Source: Liu et al. 2022.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.taps = nnx.Param(jax.random.normal(rngs.params(), (7, 7, 1, channels)) / 7)
        self.bias = nnx.Param(jnp.zeros(channels))
        self.norm = LayerNorm(channels)
        self.mlp = Mlp(channels, rngs=rngs)
        self.gamma = nnx.Param(jnp.full(channels, 1e-6))

    def __call__(self, x: jax.Array) -> jax.Array:
        near = jax.lax.conv_general_dilated(
            x, self.taps[...], (1, 1), "SAME", feature_group_count=x.shape[-1],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return x + self.gamma[...] * self.mlp(self.norm(near + self.bias[...]))


class ViTNetwork(nnx.Module):
    """See `mm.tokenizers.autoencoder.Network`. Rows are [B, H, W, C], values in [-1, 1] where they are pixels, -1 and 1
    where they are masks (for which `decode` gives logits), or labels int32[B, H, W], for which it gives logits float32[B,
    H, W, labels].

    h x w patches, each with k codes, make n = k h w latents, [k, h, w] in order.
    """

    def __init__(self, settings: ViTAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        area = s.patch**2
        self.out_channels = s.labels or s.channels
        if s.labels:
            embedding = 0.02 * jax.random.normal(rngs.params(), (s.labels, s.channels))
            self.classes = nnx.Param(embedding)
        self.patches_in = Linear(area * s.channels, s.encoder.width, rngs=rngs)
        self.encoder = _blocks(s.encoder, rngs)
        self.encoder_post = PostMlp(s.encoder.width, rngs=rngs) if s.post_mlp else None
        self.latent_out = Linear(s.encoder.width, s.code_width, rngs=rngs)
        self.projection = Projection(s.code_width, s.codebooks, s.memory, rngs=rngs)
        self.latent_in = Linear(s.code_width, s.decoder.width, rngs=rngs)
        self.decoder = _blocks(s.decoder, rngs)
        self.decoder_post = PostMlp(s.decoder.width, rngs=rngs) if s.post_mlp else None
        self.patches_out = Linear(s.decoder.width, area * self.out_channels, rngs=rngs)
        conv = lambda r: ConvNeXtBlock(self.out_channels, rngs=r)
        self.out_conv = stack(conv, 2, rngs) if s.out_conv else None

    def prepare(self, raw: jax.Array) -> jax.Array:
        """Raw rows -> float32[B, H, W, C]; labels stay int32[B, H, W]."""
        if self.settings.rows == "labels":
            return raw
        x = raw.reshape(*raw.shape[:3], self.settings.channels)
        if self.settings.rows == "mask":
            return 2 * x.astype(jnp.float32) - 1
        return x.astype(jnp.float32) / 127.5 - 1 if self.settings.rows == "pixels" else x

    def encode(self, x: jax.Array) -> jax.Array:
        """Prepared rows -> latents float32[B, n, latent]."""
        return self.projection.apart(self.features(x))

    def features(self, x: jax.Array) -> jax.Array:
        """Prepared rows -> the features that are coded, float32[B, h * w, code_width]."""
        s = self.settings
        x = self.classes[...][x] if s.labels else x
        h_bnd = self.patches_in(
            rearrange(x, "b (h p) (w q) c -> b (h w) (p q c)", p=s.patch, q=s.patch)
        )
        h_bnd = run_stack(self.encoder, h_bnd + self._positions("encoder"))
        return self.latent_out(h_bnd if self.encoder_post is None else self.encoder_post(h_bnd))

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, n, latent] -> float32[B, H, W, C], or logits of the labels."""
        s = self.settings
        h_bnd = self.latent_in(self.projection.joined(vectors_bnd))
        h_bnd = run_stack(self.decoder, h_bnd + self._positions("decoder"))
        h_bnd = h_bnd if self.decoder_post is None else self.decoder_post(h_bnd)
        out = rearrange(
            self.patches_out(h_bnd), "b (h w) (p q c) -> b (h p) (w q) c", h=s.grid.h, p=s.patch, q=s.patch
        )  # fmt: skip
        return out if self.out_conv is None else run_stack(self.out_conv, out)

    def _positions(self, name: str) -> jax.Array:
        grid, (side, width) = self.settings.grid, self.settings.stored_positions[name]
        return positions(side, grid.h, grid.w, width)

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """`reconstruction`: squared error; of labels and masks, cross-entropy in nats per pixel.

        Of labels the metric `accuracy`, of masks the metric `iou`. Of values also `smooth_l1` and, of several channels,
        `cosine_distance`: 1 - cosine between a place's vectors.
        """
        s, count = self.settings, jnp.float32(x.size)
        if s.rows == "labels":
            entropy = optax.softmax_cross_entropy_with_integer_labels(out, x)
            right = (out.argmax(-1) == x).sum().astype(jnp.float32)
            return {"reconstruction": (entropy.sum(), count), "accuracy": (right, count)}
        if s.rows == "mask":
            entropy = optax.sigmoid_binary_cross_entropy(out, x > 0)
            iou = measures.intersection_over_union(out > 0, x > 0)
            return {"reconstruction": (entropy.sum(), count), "iou": measures.summed(iou)}
        terms = {"reconstruction": (jnp.square(out - x).sum(), count)}
        if s.rows == "values":
            terms["smooth_l1"] = (measures.smooth_l1(out - x).sum(), count)
        if s.rows == "values" and s.channels > 1:
            terms["cosine_distance"] = measures.summed(1 - measures.cosine(out, x))
        return terms

    def render(self, out: jax.Array) -> jax.Array:
        """`decode`'s output -> raw rows."""
        if self.settings.rows == "labels":
            return out.argmax(-1).astype(jnp.int32)
        out = out.reshape(len(out), *self.settings.row.shape)
        if self.settings.rows == "mask":
            return out > 0
        if self.settings.rows == "values":
            return out
        return jnp.round(jnp.clip((out + 1) * 127.5, 0, 255)).astype(jnp.uint8)


def _blocks(side: Transformer, rngs: nnx.Rngs) -> Block:
    return stack(lambda r: Block(side.width, side.heads, rngs=r), side.depth, rngs)


def positions(side: int, h: int, w: int, width: int) -> jax.Array:
    """The waves of a `side` x `side` grid at the places of an h x w one, float32[h * w, width], row-major."""
    return resized(sincos_2d(side, side, width).reshape(side, side, width), h, w).reshape(-1, width)


def resized(x_hwd: jax.Array, h: int, w: int) -> jax.Array:
    """Bicubic: float32[H, W, d] -> [h, w, d], as PyTorch's interpolate without aligned corners or antialiasing.

    Source: cubic convolution, Keys 1981; places beyond the border count as those at it.
    """
    for axis, size in enumerate((h, w)):
        if size != x_hwd.shape[axis]:
            weights = jnp.asarray(cubic_weights(x_hwd.shape[axis], size), x_hwd.dtype)
            mixed = jnp.tensordot(
                weights, x_hwd, axes=(1, axis), precision=jax.lax.Precision.HIGHEST
            )
            x_hwd = jnp.moveaxis(mixed, 0, axis)
    return x_hwd


def cubic_weights(old: int, new: int) -> np.ndarray:
    """What each of `new` places takes of `old` ones, float64[new, old]; rows sum to 1."""
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    taps = np.floor(centre)[:, None] + np.arange(-1, 3)
    away = np.abs(centre[:, None] - taps)
    near = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    far = ((away - 5) * away + 8) * away * CUBIC - 4 * CUBIC
    weights = np.zeros((new, old))
    places = np.clip(taps, 0, old - 1).astype(int)
    np.add.at(weights, (np.arange(new)[:, None], places), np.where(away <= 1, near, far))
    return weights
