"""Features for comparing generated with real data, used for nothing else.

They are fitted on training rows only and share no network with model, tokenizers or judges: a fixed
front end (pixels, or a coarse log spectrogram) and its principal components. Not whitened:
distances keep the meaning of the front end, and the least components are not blown up to the weight
of the first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import fft


@dataclasses.dataclass(kw_only=True, slots=True)
class Flat:
    """The raw values themselves, one row of float32 each."""

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """rows [n, ...] -> float32[n, d]."""
        return np.asarray(rows, np.float32).reshape(len(rows), -1)


@dataclasses.dataclass(kw_only=True, slots=True)
class LogSpectrogram:
    """Waveforms as coarse log power spectrograms: phase and level do not count, what is heard does.

    Attributes:
      frame, hop: of the Hann-windowed short-time Fourier transform, in samples.
      bands: groups of neighbouring frequencies whose power is averaged.
      pool: frames that are averaged.
      floor_db: what is this far below the row's loudest cell counts as silence.
    """

    frame: int = 256
    hop: int = 128
    bands: int = 32
    pool: int = 2
    floor_db: float = -50.0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Waveforms float[n, samples] -> float32[n, d] in decibels below the loudest cell."""
        out = [self._chunk(rows[i : i + 512]) for i in range(0, len(rows), 512)]
        return np.concatenate(out)

    def _chunk(self, rows: np.ndarray) -> np.ndarray:
        waves = np.asarray(rows, np.float32)
        frames = sliding_window_view(waves, self.frame, axis=1)[:, :: self.hop]
        window = np.hanning(self.frame).astype(np.float32)
        power = np.square(np.abs(np.asarray(fft.rfft(frames * window, axis=-1))[..., 1:]))
        width = power.shape[2] // self.bands
        times = power.shape[1] // self.pool
        cells = power[:, : times * self.pool, : self.bands * width]
        cells = cells.reshape(len(waves), times, self.pool, self.bands, width).mean((2, 4))
        loudest = np.maximum(cells.max((1, 2), keepdims=True), np.finfo(np.float32).tiny)
        floor = np.float32(10 ** (self.floor_db / 10))
        return (10 * np.log10(np.maximum(cells / loudest, floor))).reshape(len(waves), -1)


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """Principal components of a front end.

    Scaled by one number, so that the training rows' mean squared distance from their centre is 1:
    Frechet distances and spreads of different front ends are then in the same unit.

    Attributes:
      front: rows -> float32[n, d].
      mean: float32[d].
      components: float32[d, k], the scale included.
    """

    front: Callable[[Any], np.ndarray]
    mean: np.ndarray
    components: np.ndarray

    def __call__(self, rows: Any) -> np.ndarray:
        """Raw rows -> float64[n, k]."""
        return ((self.front(rows) - self.mean) @ self.components).astype(np.float64)


def fit(
    front: Callable[[Any], np.ndarray], rows: Any, *, dims: int = 48, seed: int = 0
) -> Features:
    """Fits the components on raw training rows, by a randomised range finder: seconds become
    tenths.

    Source: Halko, Martinsson and Tropp 2011, SIAM Review 53(2), algorithm 4.4 with two power
    iterations.
    """
    x = front(rows)
    mean = x.mean(0)
    x = x - mean
    dims = min(dims, x.shape[1], len(x))
    probe = np.random.default_rng(seed).standard_normal((x.shape[1], min(dims + 10, x.shape[1])))
    basis = probe.astype(np.float32)
    for _ in range(3):
        basis, _ = np.linalg.qr(x.T @ (x @ basis))
    _, values, vectors = np.linalg.svd(x @ basis, full_matrices=False)
    kept = max(float(np.square(values[:dims]).sum()) / len(x), np.finfo(np.float32).tiny)
    components = (basis @ vectors[:dims].T) / np.float32(kept**0.5)
    return Features(front, mean, components.astype(np.float32))
