"""Sound as codes of its waveform, and back: strided convolutions, which may be causal, so that it can be spoken while heard.

Unlike `mm.tokenizers.audio` this keeps phases: what comes back is the wave itself, and needs more codes. A causal network
codes a stretch as soon as it is over: `encode_step` and `decode_step` take chunks of any number of stretches, and what
they give, chunk by chunk, is what `encode` and `decode` give of the whole.

Source: SoundStream (Zeghidour et al. 2021); EnCodec (Défossez et al. 2022).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils.epath import Path
from flax import nnx

from mm.errors import UserError
from mm.models.time_convolutions import Past, TimeDecoder, TimeEncoder, check_strides
from mm.space import Grid
from mm.tasks import Terms
from mm.tokenizers import measures, recordings
from mm.tokenizers.arrays import read_array

State = tuple[jax.Array, ...]
"""What an encoder or decoder has to remember between chunks."""

WEIGHTS = {"reconstruction": 1.0, "spectral": 0.3, "commitment": 0.25}
"""Weights for the task: waves differ by some 0.05 (`reconstruction`), log magnitudes by some 0.5 (`spectral`)."""


@dataclasses.dataclass(kw_only=True, slots=True)
class WaveformAutoencoder:
    """Settings of the network for rows float32[length], or [length, channels] of several channels, in [-1, 1].

    Attributes:
      rate: samples per second. length: samples of a row; trained weights take any multiple of a stretch.
      channels: 1, or 2 for stereo.
      strides: from the samples on; their product is the stretch that one code stands for.
      width: features at the samples; each stride doubles them, up to `widest`.
      window: of the convolutions. dilations: of the residual units before each stride.
      latent: features of a latent; the quantizer's width.
      causal: whether nothing depends on what comes later.
      windows: of the spectral term, in samples; at most a row long.
      peak, trim_db: how a user's recording is brought to the form of the training data; see
        `mm.tokenizers.audio.AudioAutoencoder`.
    """

    rate: int = 8000
    length: int = 8000
    channels: int = 1
    strides: tuple[int, ...] = (2, 4, 5, 8)
    width: int = 16
    widest: int = 256
    window: int = 7
    dilations: tuple[int, ...] = (1, 3, 9)
    latent: int = 16
    causal: bool = True
    windows: tuple[int, ...] = (64, 128, 256, 512, 1024)
    peak: float = 0.9
    trim_db: tuple[float, float] = (15.0, 35.0)

    def validate(self) -> None:
        """Raises UserError for stretches that do not tile a row, or windows of another form."""
        at = "config.task.network"
        if wrong := check_strides(self.strides, self.length):
            raise UserError(f"{at}.{wrong}; change one")
        if self.channels < 1 or self.window % 2 == 0:
            raise UserError(
                f"{at}: channels={self.channels}, window={self.window}: at least 1, and an odd number; change one"
            )
        if not self.windows or max(self.windows) > self.length or any(n % 4 for n in self.windows):
            raise UserError(
                f"{at}.windows={self.windows}: multiples of 4, at most length={self.length}; change one"
            )

    @property
    def row(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of a raw row."""
        more = (self.channels,) if self.channels > 1 else ()
        return jax.ShapeDtypeStruct((self.length, *more), np.float32)

    @property
    def stretch(self) -> int:
        """Samples that one code stands for."""
        return math.prod(self.strides)

    @property
    def grid(self) -> Grid:
        return Grid(t=self.length // self.stretch)

    def build(self, rngs: nnx.Rngs) -> "WaveformNetwork":
        return WaveformNetwork(self, rngs=rngs)

    def measures(self, raw: np.ndarray, decoded: np.ndarray) -> dict[str, float | None]:
        """`recordings.wave_figures`, channels one after the other."""
        return recordings.wave_figures(
            *(_apart(x.reshape(*x.shape[:2], -1)) for x in (raw, decoded))
        )

    def read_file(self, path: Path) -> np.ndarray:
        """A user's recording -> float32[length], see `mm.tokenizers.recordings`; of several channels, a .npy array."""
        if self.channels > 1:
            return read_array(path, self.row)
        return recordings.framed(recordings.read_recording(path, self.rate), self)

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """A row -> a WAV of 16 bit; returns its path."""
        return recordings.write_recording(raw, self.rate, stem)


class WaveformNetwork(nnx.Module):
    """See `mm.tokenizers.autoencoder.Network`. T samples make n = T / stretch codes."""

    def __init__(self, settings: WaveformAutoencoder, *, rngs: nnx.Rngs):
        s = settings
        self.settings = s
        kind = {
            "strides": s.strides, "width": s.width, "widest": s.widest, "window": s.window,
            "dilations": s.dilations, "causal": s.causal, "rngs": rngs,
        }  # fmt: skip
        self.encoder = TimeEncoder(s.channels, s.latent, **kind)
        self.decoder = TimeDecoder(s.latent, s.channels, **kind)

    def prepare(self, raw: jax.Array) -> jax.Array:
        """float32[B, T] or [B, T, channels] -> [B, T, channels]."""
        return raw.reshape(*raw.shape[:2], self.settings.channels)

    def encode(self, x: jax.Array) -> jax.Array:
        """float32[B, T, channels] -> latents float32[B, n, latent]."""
        return self.encoder(x, Past())

    def decode(self, vectors_bnd: jax.Array) -> jax.Array:
        """Codes' vectors float32[B, n, latent] -> float32[B, T, channels]."""
        return self.decoder(vectors_bnd, Past())

    def start(self, rows: int) -> tuple[State, State]:
        """States of encoder and decoder of so many rows, before the first chunk.

        Raises:
          UserError: the network is not causal.
        """
        s = self.settings
        if not s.causal:
            raise UserError("WaveformAutoencoder.causal=False: only a causal network takes chunks")
        chunk = jax.ShapeDtypeStruct((rows, s.stretch, s.channels), np.float32)
        codes = jax.ShapeDtypeStruct((rows, 1, s.latent), np.float32)
        sides = (self.encoder, chunk), (self.decoder, codes)
        first, second = (jax.eval_shape(lambda x, f=f: _step(f, None, x)[0], x) for f, x in sides)
        return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (first, second))

    def encode_step(self, state: State, chunk: jax.Array) -> tuple[State, jax.Array]:
        """The next prepared samples float32[B, k * stretch, channels] -> (state, latents float32[B, k, latent])."""
        return _step(self.encoder, state, chunk)

    def decode_step(self, state: State, vectors_bnd: jax.Array) -> tuple[State, jax.Array]:
        """The next codes' vectors float32[B, k, latent] -> (state, samples float32[B, k * stretch, channels])."""
        return _step(self.decoder, state, vectors_bnd)

    def terms(self, out: jax.Array, x: jax.Array) -> Terms:
        """`reconstruction`: absolute error of samples. `spectral`: see `measures.spectral`. Metrics, in dB: `si_sdr` and
        `log_spectral_distance`.
        """
        made, real = _apart(out), _apart(x)
        return {
            "reconstruction": (jnp.abs(out - x).sum(), jnp.float32(x.size)),
            "spectral": measures.summed(measures.spectral(made, real, self.settings.windows)),
            "si_sdr": measures.summed(measures.si_sdr(made, real)),
            "log_spectral_distance": measures.summed(measures.log_spectral_distance(made, real)),
        }

    def render(self, out: jax.Array) -> jax.Array:
        """float32[B, T, channels] -> raw rows, no louder than 1."""
        return jnp.clip(out, -1, 1).reshape(-1, *self.settings.row.shape)


def _step(
    side: TimeEncoder | TimeDecoder, state: State | None, x: jax.Array
) -> tuple[State, jax.Array]:
    past = Past(state)
    out = side(x, past)
    return tuple(past.seen), out


def _apart(x_btc: Any) -> Any:
    """Channels as rows of their own: [B, T, C] -> [B * C, T]."""
    return x_btc.swapaxes(1, 2).reshape(-1, x_btc.shape[1])
