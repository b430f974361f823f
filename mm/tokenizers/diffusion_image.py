"""Pictures and maps as a grid of codes whose decoder is a diffusion model: from noise, by what the codes say, in a few steps.

A decoder that must name every pixel answers the mean of what it does not know, which is blur; this one draws one of the
pictures that there may be. The encoder is that of `conv_image`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mm.errors import UserError
from mm.models.convolutions import ConvBlock, ConvEncoder, FrameNorm, SpaceTimeConv, Up
from mm.models.layers import Linear, sincos_1d
from mm.tasks import Terms
from mm.tokenizers import diffusion
from mm.tokenizers.conv_image import ConvAutoencoder, PictureNetwork

TIMES = 1000  # waves of the time are those of so many places


@dataclasses.dataclass(kw_only=True, slots=True)
class DiffusionAutoencoder(ConvAutoencoder):
    """Settings of the network for rows on a grid; `widths` are those of encoder and decoder.

    Attributes:
      steps: of DDIM, when codes are decoded.
    """

    steps: int = 25

    def validate(self) -> None:
        """Raises UserError: see `ConvAutoencoder`; or no steps."""
        ConvAutoencoder.validate(self)
        if not 1 <= self.steps <= TIMES:
            raise UserError(f"config.task.network.steps={self.steps}: 1 .. {TIMES}; change it")

    def build(self, rngs: nnx.Rngs) -> "DiffusionImageNetwork":
        return DiffusionImageNetwork(self, rngs=rngs)


class DiffusionImageNetwork(PictureNetwork):
    """See `mm.tokenizers.autoencoder.Network`. Rows are float32[B, H, W, C], as `ConvImageNetwork`'s."""

    def __init__(self, settings: DiffusionAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        self.encoder = ConvEncoder(
            s.channels, s.latent, widths=s.widths, steps=(1,) * len(s.widths), span=1, depth=s.depth,
            groups=s.groups, rngs=rngs,
        )  # fmt: skip
        self.denoiser = Denoiser(s, rngs=rngs)

    def encode(self, x: jax.Array) -> jax.Array:
        """Prepared rows -> latents float32[B, h * w, latent]."""
        return self.encoder(x[:, None]).reshape(len(x), -1, self.settings.latent)

    def learn(self, vectors_bnd: jax.Array, x: jax.Array, key: jax.Array) -> Terms:
        """The term of a training step: `velocity`, squared error of what leads from x to noise, at a time per row."""
        of_times, of_noise = jax.random.split(key)
        t, noise = diffusion.times(of_times, len(x)), jax.random.normal(of_noise, x.shape)
        x_t, v = diffusion.noised(x, noise, t)
        error = jnp.square(self.denoiser(x_t, t, vectors_bnd) - v)
        return {"velocity": (error.sum(), jnp.float32(error.size))}

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, h * w, latent] -> float32[B, H, W, C], from one noise for all rows: codes have one
        picture, whatever is decoded beside them."""
        s = self.settings
        noise = jax.random.normal(jax.random.key(0), (1, s.height, s.width, s.channels))
        noise = jnp.broadcast_to(noise, (len(vectors_bnd), *noise.shape[1:]))
        velocity = lambda x_t, t: self.denoiser(x_t, t, vectors_bnd)
        return diffusion.ddim(velocity, noise, s.steps)


class Denoiser(nnx.Module):
    """A U-Net over one frame: down to the grid of the codes, which join there, and up again beside what was on the way down."""

    def __init__(self, s: DiffusionAutoencoder, *, rngs: nnx.Rngs):
        self.grid, self.stages, self.waves = s.grid, len(s.widths), s.widths[0]
        self.time = Linear(self.waves, self.waves, rngs=rngs)
        block = lambda width: ConvBlock(width, rngs=rngs, span=1, groups=s.groups)
        last = s.channels
        for i, width in enumerate(s.widths):
            setattr(self, f"entry{i}", SpaceTimeConv(last, width, rngs=rngs, window=4, stride=2))
            setattr(self, f"time{i}", Linear(self.waves, width, rngs=rngs))
            setattr(self, f"down{i}", block(width))
            setattr(self, f"up{i}", block(width))
            setattr(self, f"norm{i}", FrameNorm(width, s.groups, rngs=rngs))
            setattr(self, f"out{i}", Up(width, last, rngs=rngs, span=1, steps=1, stride=2))
            last = width
        self.codes = SpaceTimeConv(s.latent, last, rngs=rngs)

    def __call__(self, x_t: jax.Array, t: jax.Array, vectors_bnd: jax.Array) -> jax.Array:
        """Velocity float32[B, H, W, C] at x_t, of time t float32[B] and codes' vectors."""
        place = jnp.clip(jnp.round(t * (TIMES - 1)), 0, TIMES - 1).astype(jnp.int32)
        time_bd = jax.nn.silu(self.time(jnp.asarray(sincos_1d(TIMES, self.waves))[place]))
        h, passed = x_t[:, None], []
        for i in range(self.stages):
            h = getattr(self, f"entry{i}")(h)
            h = h + getattr(self, f"time{i}")(time_bd)[:, None, None, None]
            h = getattr(self, f"down{i}")(h)
            passed.append(h)
        h = h + self.codes(vectors_bnd.reshape(len(h), 1, self.grid.h, self.grid.w, -1))
        for i in reversed(range(self.stages)):
            # what passed beside is added: half the products of one that is appended
            h = getattr(self, f"up{i}")(h if i == self.stages - 1 else h + passed[i])
            h = getattr(self, f"out{i}")(getattr(self, f"norm{i}")(h))
        return h[:, 0]
