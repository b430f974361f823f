"""Sound as a short row of codes: a log spectrogram, one code per stretch of time, and back.

The encoder sees little more than the stretch that its code stands for, and not where it is: equal
sounds get equal codes wherever they are, silence is one of them, and a model can predict them one
from another. The decoder sees all codes at once, and finds in their company what one code does not
say (whose voice it is). Phases are not coded: `signal.griffin_lim` finds some that fit.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.models.layers import Block, LayerNorm, Linear, run_stack, sincos_1d, stack
from mm.space import Grid
from mm.tasks import Terms
from mm.tokenizers import signal
from mm.tokenizers.recordings import framed, read_recording, wave_figures, write_recording

DB = 20 / np.log(10)  # decibels per natural unit of log magnitude
RENDERED = 16  # waves whose phases are found together: what fits in a core's cache is twice as fast


@dataclasses.dataclass(kw_only=True, slots=True)
class AudioAutoencoder:
    """Settings of the network for one-channel sound.

    Attributes:
      rate: samples per second. length: samples of a row.
      peak: largest absolute value of a row; what is decoded or read from a file is brought to it.
      n_fft, hop: of the short-time Fourier transform, in samples.
      patch: frames that one code stands for; divides the number of frames.
      context: further frames on each side that the encoder sees at once.
      reach: places on each side that an encoder block attends to.
      floor: magnitude (1 = full-scale sine) added before the logarithm; what is quieter hardly
        counts.
      denoise: a row is silent where it is quieter than that many times its quietest frames, 0 for
        none: steady noise carries no message, and would need codes of its own.
      mean, std: of log magnitudes over training rows.
      latent: features of a latent; the quantizer's width.
      encoder_width, encoder_blocks, decoder_width, decoder_blocks, heads: of the two transformers.
      iterations: of Griffin-Lim.
      bands: mel bands of the term `envelope`.
      trim_db: a file's ends are silence where they are less than 10 dB above its quietest tenth;
        but never above the first of these (below its loudest moment), and always below the second.
    """

    rate: int = 8000
    length: int = 8000
    peak: float = 0.9
    n_fft: int = 256
    hop: int = 100
    patch: int = 5
    context: int = 2
    reach: int = 1
    floor: float = 1e-3
    denoise: float = 2.5
    mean: float = -6.5
    std: float = 0.96
    latent: int = 16
    encoder_width: int = 128
    encoder_blocks: int = 1
    decoder_width: int = 192
    decoder_blocks: int = 3
    heads: int = 4
    iterations: int = 32
    bands: int = 32
    trim_db: tuple[float, float] = (15.0, 35.0)

    def validate(self) -> None:
        """Raises UserError for frames that do not tile a row, or overlap too little to come back."""
        stretch = self.hop * self.patch
        if self.length % stretch:
            raise UserError(
                f"config.task.network.length={self.length}: not a multiple of hop x patch "
                f"({self.hop} x {self.patch} = {stretch} samples); change one"
            )
        if 2 * self.hop > self.n_fft:
            raise UserError(
                f"config.task.network.hop={self.hop}: more than half of n_fft={self.n_fft}; change one"
            )

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        return jax.ShapeDtypeStruct((self.length,), np.float32)

    @property
    def grid(self) -> Grid:
        return Grid(t=self.length // (self.hop * self.patch))

    @property
    def silence(self) -> float:
        """What the network sees of digital silence."""
        return float((np.log(self.floor) - self.mean) / self.std)

    def build(self, rngs: nnx.Rngs) -> "AudioNetwork":
        return AudioNetwork(self, rngs=rngs)

    def read_file(self, path: Path) -> np.ndarray:
        """A user's recording -> float32[length]: one channel, ends trimmed, at the training level.

        Raises UserError: see `read_recording`.
        """
        return framed(read_recording(path, self.rate), self)

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """float32[length] -> a WAV of 16 bit; returns its path."""
        return write_recording(raw, self.rate, stem)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """See `recordings.wave_figures`. Phases are not coded, so that the wave itself hardly comes back."""
        return wave_figures(raw, decoded)


class AudioNetwork(nnx.Module):
    """See `mm.tokenizers.autoencoder.Network`. Raw rows are float32[B, length] in [-1, 1].

    F = length / hop frames of K = n_fft / 2 + 1 frequencies make n = F / patch codes.
    """

    def __init__(self, settings: AudioAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        self.places, features = s.grid.size, s.n_fft // 2 + 1
        encoder_block = lambda r: Block(s.encoder_width, s.heads, rngs=r)
        decoder_block = lambda r: Block(s.decoder_width, s.heads, rngs=r)
        self.patch_in = Linear((s.patch + 2 * s.context) * features, s.encoder_width, rngs=rngs)
        self.encoder = stack(encoder_block, s.encoder_blocks, rngs)
        self.encoder_norm = LayerNorm(s.encoder_width)
        self.latent_out = Linear(s.encoder_width, s.latent, rngs=rngs)
        self.latent_in = Linear(s.latent, s.decoder_width, rngs=rngs)
        self.decoder = stack(decoder_block, s.decoder_blocks, rngs)
        self.decoder_norm = LayerNorm(s.decoder_width)
        self.patch_out = Linear(s.decoder_width, s.patch * features, rngs=rngs)

    def prepare(self, raw: jax.Array) -> jax.Array:
        """float32[B, length] -> standardised log magnitudes float32[B, F, K].

        Digital silence is the least of them.
        """
        s = self.settings
        magnitude = signal.magnitude(raw, s.n_fft, s.hop)
        if s.denoise:
            noise = s.denoise * steady_noise(magnitude)
            # what is far above the noise stays as it is
            magnitude *= jnp.maximum(1 - jnp.square(noise / (magnitude + 1e-9)), 0.0)
        return (jnp.log(magnitude + s.floor) - s.mean) / s.std

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, F, K] -> latents float32[B, n, latent]."""
        s = self.settings
        # Places beyond the ends, as far as the blocks look: silence there is like any other.
        margin = s.reach * s.encoder_blocks
        beyond = margin * s.patch + s.context
        padded = jnp.pad(x, ((0, 0), (beyond, beyond), (0, 0)), constant_values=s.silence)
        place = np.arange(self.places + 2 * margin)
        # slice i holds frame i of every place's frames: its context, its own, its context
        count = len(place) * s.patch
        shifts = [padded[:, i : i + count : s.patch] for i in range(s.patch + 2 * s.context)]
        near = jnp.asarray(np.abs(place[:, None] - place) <= s.reach)
        h_bnd = run_stack(
            self.encoder, self.patch_in(jnp.concatenate(shifts, -1)), near, scan=False
        )
        return self.latent_out(self.encoder_norm(h_bnd[:, margin : margin + self.places]))

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, n, latent] -> standardised log magnitudes float32[B, F, K]."""
        positions = sincos_1d(self.places, self.settings.decoder_width)
        h_bnd = run_stack(self.decoder, self.latent_in(vectors_bnd) + positions, scan=False)
        patches = self.patch_out(self.decoder_norm(h_bnd))
        return rearrange(patches, "b n (f k) -> b (n f) k", f=self.settings.patch)

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """What `out` differs from `x` by.

        `reconstruction` is the squared error of standardised log magnitudes, `envelope` that of
        their means in mel bands: which sound it is shows in the bands, the harmonics between them
        are the voice's. `log_spectral_distance`, a metric: the root of the mean squared error over
        frequencies, in decibels, averaged over the frames in which there is sound.
        """
        s = self.settings
        error = jnp.square(out - x)
        bank = signal.mel_filterbank(s.rate, s.n_fft, s.bands)
        envelope = jnp.square((out - x).reshape(-1, x.shape[-1]) @ (bank / bank.sum(0)))
        sounding = (x.max(-1) > s.silence + 1e-3).astype(jnp.float32)
        distance = DB * s.std * jnp.sqrt(error.mean(-1))
        return {
            "reconstruction": (error.sum(), jnp.float32(error.size)),
            "envelope": (envelope.sum(), jnp.float32(envelope.size)),
            "log_spectral_distance": ((distance * sounding).sum(), sounding.sum()),
        }

    def render(self, out: jax.Array) -> jax.Array:
        """Standardised log magnitudes float32[B, F, K] -> float32[B, length], loudest at `peak`."""
        s = self.settings
        magnitude = jnp.maximum(jnp.exp(out * s.std + s.mean) - s.floor, 0.0)
        find = lambda m: signal.griffin_lim(m[None], s.hop, s.length, iterations=s.iterations)[0]
        wave = jax.lax.map(find, magnitude, batch_size=min(RENDERED, len(out)))
        loudest = jnp.abs(wave).max(1, keepdims=True)
        # silence stays silence
        return wave * (s.peak / jnp.maximum(loudest, 20 * s.floor))


def steady_noise(magnitude_bfk: jax.Array) -> jax.Array:
    """Mean magnitudes of a row's quietest frames: float32[B, F, K] -> float32[B, 1, K].

    A smooth choice (weights fall with the square of a frame's power): sorting is slow on CPU.
    """
    power = jnp.square(magnitude_bfk).mean(-1, keepdims=True)
    weight = jnp.square(1 / (power + 1e-9))
    return (weight * magnitude_bfk).sum(1, keepdims=True) / weight.sum(1, keepdims=True)
