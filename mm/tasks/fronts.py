"""What a classifier sees of raw rows, and the variations of it that training adds.

A front turns rows into float maps [B, H, W, C] in [0, 1]. `varied` does so with random changes that
keep the label: all computed on the device from one key, so that a step stays a pure function of
(seed, step). The changes are ways in which real recordings and drawings differ, only wider: rows
that a machine made are never shown.
"""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from mm.tokenizers import signal

DB = 10 / np.log(10)  # decibels per natural unit of log power
KNOTS = 6  # of random smooth curves and fields, per side


class Front(Protocol):
    """What a judge learns from: a dataclass of JSON-ready settings.

    Attributes:
      dtype, row: of one raw row, and its shape. shape: of one map, (H, W, C).
    """

    dtype: Any

    @property
    def row(self) -> tuple[int, ...]: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def maps(self, rows: jax.Array) -> jax.Array:
        """Raw rows [B, ...] -> float32[B, H, W, C] in [0, 1]."""
        ...

    def varied(self, rows: jax.Array, key: jax.Array) -> jax.Array:
        """The same, with random changes that keep the label."""
        ...


@dataclasses.dataclass(kw_only=True, slots=True)
class Pixels:
    """Grey images as they are.

    Attributes:
      shift: pixels. rotate: degrees. scale, aspect: natural log of a factor. shear: pixels per
        pixel. All uniform between minus and plus that much.
      bend: standard deviation, in pixels, of a smooth random displacement.
      soften: largest share of a 3 x 3 blur in a row; half of the rows stay sharp.
    """

    kind: ClassVar[str] = "pixels"
    dtype: ClassVar[type] = np.uint8
    height: int = 28
    width: int = 28
    shift: float = 2.0
    rotate: float = 12.0
    scale: float = 0.12
    aspect: float = 0.08
    shear: float = 0.2
    bend: float = 1.0
    soften: float = 0.7

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one raw row."""
        return (self.height, self.width)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one map."""
        return (self.height, self.width, 1)

    def maps(self, rows: jax.Array) -> jax.Array:
        """uint8[B, H, W] -> float32[B, H, W, 1]."""
        return (rows.astype(jnp.float32) / 255)[..., None]

    def varied(self, rows: jax.Array, key: jax.Array) -> jax.Array:
        """uint8[B, H, W] -> float32[B, H, W, 1]: moved, turned, stretched, bent, blurred."""
        b = rows.shape[0]
        of_affine, of_bend, of_blur = jax.random.split(key, 3)
        u = jax.random.uniform(of_affine, (6, b, 1, 1), minval=-1, maxval=1)
        angle = u[0] * self.rotate * np.pi / 180
        scale, aspect = jnp.exp(self.scale * u[1]), jnp.exp(self.aspect * u[2])
        y, x = centred(self.height)[:, None], centred(self.width)[None, :]
        y, x = scale * aspect * y, scale / aspect * (x + self.shear * u[3] * y)
        bend = self.bend * smooth_fields(of_bend, (2, b), self.height, self.width)
        from_y = jnp.cos(angle) * y - jnp.sin(angle) * x + self.shift * u[4] + bend[0]
        from_x = jnp.sin(angle) * y + jnp.cos(angle) * x + self.shift * u[5] + bend[1]
        moved = sample(
            self.maps(rows)[..., 0], from_y + (self.height - 1) / 2, from_x + (self.width - 1) / 2
        )
        share = self.soften * jax.random.uniform(of_blur, (b, 1, 1), minval=-1, maxval=1)
        return blur(blur(moved, 1, share), 2, share)[..., None]


@dataclasses.dataclass(kw_only=True, slots=True)
class LogMel:
    """Waveforms as log power in mel bands over time; phase and level do not count.

    Attributes:
      samples, rate: of a row, and per second.
      n_fft, hop: of the short-time Fourier transform, in samples. mels: bands.
      range_db: what is this far below a row's loudest cell counts as silence.
      noise_db: range of added stationary noise, relative to the loudest cell.
      tilt_db: standard deviation of a change that falls or rises over all bands.
      equalize_db: of one that is smooth over the bands.
      stretch: natural log of a factor in time. warp: in frequency (another vocal tract).
      shift: share of the row's length, in time. shift_bands: bands. These four are uniform between
        minus and plus that much.
      blur: largest share of neighbouring frames and bands in each; half of the rows stay sharp.
      masks: how many stretches of time, and how many of frequency, are silenced.
      mask_frames, mask_bands: the longest of them.

    Source of the masks: SpecAugment, Park et al. 2019; of the warp: Jaitly and Hinton 2013.
    """

    kind: ClassVar[str] = "log_mel"
    dtype: ClassVar[type] = np.float32
    samples: int = 8000
    rate: int = 8000
    n_fft: int = 256
    hop: int = 128
    mels: int = 32
    range_db: float = 50.0
    noise_db: tuple[float, float] = (-60.0, -20.0)
    tilt_db: float = 5.0
    equalize_db: float = 3.0
    stretch: float = 0.25
    warp: float = 0.1
    shift: float = 0.08
    shift_bands: float = 1.0
    blur: float = 1.0
    masks: int = 2
    mask_frames: int = 8
    mask_bands: int = 6

    @property
    def row(self) -> tuple[int, ...]:
        """Shape of one raw row."""
        return (self.samples,)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one map: frames, bands, 1."""
        return (-(-self.samples // self.hop), self.mels, 1)

    def maps(self, rows: jax.Array) -> jax.Array:
        """float32[B, samples] -> float32[B, frames, bands, 1], 1 at the loudest cell."""
        return self._levels(self._decibels(rows))[..., None]

    def varied(self, rows: jax.Array, key: jax.Array) -> jax.Array:
        """float32[B, samples] -> float32[B, frames, bands, 1]: another voice, room, microphone."""
        keys = jax.random.split(key, 5)
        levels = self._levels(self._recorded(self._decibels(rows), keys[0]))
        u = jax.random.uniform(keys[1], (4, len(rows), 1, 1), minval=-1, maxval=1)
        frames, bands, _ = self.shape
        t, f = jnp.arange(frames)[:, None], jnp.arange(bands)[None, :]
        from_t = jnp.exp(self.stretch * u[0]) * t + self.shift * frames * u[1]
        from_f = jnp.exp(self.warp * u[2]) * f + self.shift_bands * u[3]
        shape = (len(rows), frames, bands)
        levels = sample(levels, jnp.broadcast_to(from_t, shape), jnp.broadcast_to(from_f, shape))
        share = self.blur * jax.random.uniform(keys[2], (2, len(rows), 1, 1), minval=-1, maxval=1)
        levels = blur(blur(blur(levels, 1, share[0]), 1, share[0]), 2, share[1])
        levels = jnp.where(
            stripes(keys[3], len(rows), frames, self.masks, self.mask_frames)[:, :, None],
            0.0,
            levels,
        )
        return jnp.where(
            stripes(keys[4], len(rows), bands, self.masks, self.mask_bands)[:, None, :], 0.0, levels
        )[..., None]

    def _decibels(self, rows: jax.Array) -> jax.Array:
        """float32[B, samples] -> float32[B, frames, bands], 0 at the loudest cell."""
        # 20 dB over full scale: the floor of `log_mel` is then below what `range_db` keeps.
        peak = jnp.maximum(jnp.abs(rows).max(1, keepdims=True), 1e-4)
        db = DB * signal.log_mel(10 * rows / peak, self.rate, self.n_fft, self.hop, self.mels)
        return db - db.max((1, 2), keepdims=True)

    def _recorded(self, db: jax.Array, key: jax.Array) -> jax.Array:
        """Adds noise and a colouring: float32[B, frames, bands] in decibels -> the same."""
        of_level, of_noise, of_tilt, of_curve = jax.random.split(key, 4)
        b, _, bands = db.shape
        slope = jnp.linspace(-1.0, 1.0, bands)
        level = jax.random.uniform(
            of_level, (b, 1, 1), minval=self.noise_db[0], maxval=self.noise_db[1]
        )
        tilt = jax.random.normal(of_tilt, (2, b, 1, 1)) * slope
        # Power of noise in a band is exponentially distributed.
        power = jax.random.exponential(of_noise, db.shape) * 10 ** (
            (level + self.tilt_db * tilt[0]) / 10
        )
        noisy = DB * jnp.log(10 ** (db / 10) + power)
        curve = smooth_fields(of_curve, (b,), 1, bands)
        return noisy + self.tilt_db * tilt[1] + self.equalize_db * curve

    def _levels(self, db: jax.Array) -> jax.Array:
        """Decibels -> [0, 1]: 1 at the loudest cell, 0 at `range_db` below it and less."""
        return jnp.clip((db - db.max((1, 2), keepdims=True)) / self.range_db + 1, 0.0, 1.0)


KINDS = {cls.kind: cls for cls in (Pixels, LogMel)}
"""Fronts that artefacts call by a short name; others by the class's own (`mm.parts`)."""


def centred(n: int) -> jax.Array:
    """Positions of n pixels relative to their middle: float32[n]."""
    return jnp.arange(n) - (n - 1) / 2


def smooth_fields(key: jax.Array, lead: tuple[int, ...], height: int, width: int) -> jax.Array:
    """Fields float32[*lead, height, width]: standard normal at knots, linear between them."""

    def upsample(n: int) -> np.ndarray:
        places = np.linspace(0, KNOTS - 1, n)[:, None]
        return np.maximum(1 - np.abs(places - np.arange(KNOTS)), 0).astype(np.float32)

    knots = jax.random.normal(key, (*lead, KNOTS, KNOTS))
    return jnp.einsum("hi,...ij,wj->...hw", upsample(height), knots, upsample(width))


def sample(maps_bhw: jax.Array, y_bhw: jax.Array, x_bhw: jax.Array) -> jax.Array:
    """Bilinear interpolation: maps float32[B, H, W] read at (y, x), in pixels; 0 outside.

    All four arrays have one shape.
    """
    b, h, w = maps_bhw.shape
    padded = jnp.pad(maps_bhw, ((0, 0), (1, 2), (1, 2))).reshape(b, -1)
    y = jnp.clip(y_bhw + 1, 0, h + 1)
    x = jnp.clip(x_bhw + 1, 0, w + 1)
    top, left = jnp.floor(y), jnp.floor(x)
    corner = (top * (w + 3) + left).astype(jnp.int32).reshape(b, -1)
    at = [jnp.take_along_axis(padded, corner + o, 1).reshape(b, h, w) for o in (0, 1, w + 3, w + 4)]
    dy, dx = y - top, x - left
    return (1 - dy) * ((1 - dx) * at[0] + dx * at[1]) + dy * ((1 - dx) * at[2] + dx * at[3])


def blur(maps_bhw: jax.Array, axis: int, share: jax.Array) -> jax.Array:
    """Mixes maps with their [1 2 1]/4 blur along an axis by `share` [B, 1, 1]; below 0 is none."""
    pad = [(0, 0)] * 3
    pad[axis] = (1, 1)
    padded, n = jnp.pad(maps_bhw, pad, mode="edge"), maps_bhw.shape[axis]
    near = [jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in (0, 2)]
    blurred = (near[0] + 2 * maps_bhw + near[1]) / 4
    return maps_bhw + jnp.maximum(share, 0) * (blurred - maps_bhw)


def stripes(key: jax.Array, rows: int, length: int, count: int, longest: int) -> jax.Array:
    """bool[rows, length], True in `count` random stretches of up to `longest` places each."""
    u = jax.random.uniform(key, (2, rows, count, 1))
    size = u[1] * longest
    start = u[0] * length - size / 2
    places = jnp.arange(length) + 0.5
    return ((places >= start) & (places < start + size)).any(1)
