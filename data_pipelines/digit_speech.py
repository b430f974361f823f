"""One second of speech from each recording, and the augmented forms of it that training hears.

Thousands of rows are made per second, so that none has to be stored: a form's speed is a Fourier
resampling to one of a few fast lengths, its noise a stretch of one noise bank. Form 0 is the
recording itself. Peaks are made equal in all forms: those of the recordings differ by 40 dB, and
loudness says nothing about a digit.
"""

import json

import numpy as np
from scipy import fft

from mm.data.columns import digest

RATE = 8000
LENGTH = 8000
PEAK = 0.9
"""Largest absolute value of every row: the level that all recordings are brought to."""

FORMS_VERSION = 1
"""Part of the columns' fingerprints: raise it when a change below changes the rows."""

WORK = 9216  # samples of a recording that are resampled: LENGTH and more, at every speed
LENGTHS = [n for n in range(8192, 10369, 32) if fft.next_fast_len(n) == n]  # speed 1.125 .. 0.889
SHIFT = 800  # latest start in samples, 0.1 s
SNR_DB = (20.0, 35.0)
BANK = 1 << 18


class Waves:
    """Column of waves: row = recording x forms + form. See `mm.data.Column`."""

    def __init__(self, recordings: list[np.ndarray], number: np.ndarray, *, forms: int, seed: int):
        """
        Args:
          recordings: int16[T] each, at 8 kHz.
          number: int[n], of each in the whole data set: its forms depend on it, not on its place in
            the split.
          forms: rows per recording; the first is clean.
          seed: decides speeds, shifts and noise.
        """
        self.recordings, self.forms, self.rate = recordings, forms, RATE
        self.lengths = np.array([len(samples) for samples in recordings], np.int64)
        made = [FORMS_VERSION, PEAK, forms, seed if forms > 1 else None]
        self.fingerprint = digest(
            np.concatenate(recordings), self.lengths, number, json.dumps(made)
        )
        rng = np.random.default_rng([seed, FORMS_VERSION])
        self.bank = rng.standard_normal(BANK, dtype=np.float32)
        self.draws = rng.random((int(number.max()) + 1, forms, 4), dtype=np.float32)[number]

    def __len__(self) -> int:
        return len(self.recordings) * self.forms

    @property
    def cut(self) -> int:
        """Recordings longer than the one second that rows hold."""
        return int((self.lengths > LENGTH).sum())

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows int[n] -> float32[n, 8000] at 8 kHz in [-0.9, 0.9], zeros where nothing is said.

        What is longer than a second loses its end; slowing down never cuts what was not cut before.
        """
        recording, form = np.divmod(np.asarray(rows, np.int64), self.forms)
        waves = np.empty((len(recording), LENGTH), np.float32)
        for start in range(0, len(recording), 512):  # bounds the memory for spectra
            part = slice(start, start + 512)
            waves[part] = self._rows(recording[part], form[part])
        return waves

    def _rows(self, recording: np.ndarray, form: np.ndarray) -> np.ndarray:
        distinct, place = np.unique(recording, return_inverse=True)
        work = self._read(distinct)
        lengths = np.minimum(self.lengths[recording], WORK)
        waves = np.zeros((len(recording), LENGTH), np.float32)
        clean = np.flatnonzero(form == 0)
        waves[clean] = work[place[clean], :LENGTH]
        changed = np.flatnonzero(form > 0)
        if len(changed):
            draws = self.draws[recording[changed], form[changed]]
            waves[changed] = self._augment(work, place[changed], lengths[changed], draws)
        return waves * (PEAK / np.maximum(np.abs(waves).max(1, keepdims=True), 1e-6))

    def _read(self, recording: np.ndarray) -> np.ndarray:
        """float32[n, WORK] in [-1, 1): recordings, zero-padded or cut at the end."""
        work = np.zeros((len(recording), WORK), np.float32)
        for row, number in zip(work, recording, strict=True):
            samples = self.recordings[number][:WORK]
            row[: len(samples)] = samples
        return work / 32768

    def _augment(
        self, work: np.ndarray, place: np.ndarray, lengths: np.ndarray, draws: np.ndarray
    ) -> np.ndarray:
        """Speed, shift and noise.

        Args:
          work: float32[m, WORK]. place: int[n], row of `work`. lengths: int[n], samples of it that
            are speech.
          draws: float32[n, 4] in [0, 1): what decides speed, shift, noise level and noise.

        Returns:
          float32[n, LENGTH].
        """
        spectra = np.asarray(fft.rfft(work, axis=1))
        longest = WORK * np.maximum(LENGTH / lengths, 1)  # slower forms would lose their ends
        choice = (draws[:, 0] * np.searchsorted(LENGTHS, longest, side="right")).astype(int)
        waves = np.zeros((len(place), LENGTH), np.float32)
        power = np.zeros(len(place), np.float32)
        for c in np.unique(choice):
            rows, size = np.flatnonzero(choice == c), LENGTHS[c]
            resampled = _resample(spectra[place[rows]], size)
            spoken = np.minimum(np.round(lengths[rows] * size / WORK).astype(int), LENGTH)
            starts = (draws[rows, 1] * (np.minimum(SHIFT, LENGTH - spoken) + 1)).astype(int)
            for row, start, count, wave in zip(rows, starts, spoken, resampled, strict=True):
                waves[row, start : start + count] = wave[:count]
            power[rows] = np.square(waves[rows]).sum(1) / spoken
        snr = SNR_DB[0] + draws[:, 2] * (SNR_DB[1] - SNR_DB[0])
        level = np.sqrt(power) * 10 ** (-snr / 20)
        noise = np.lib.stride_tricks.sliding_window_view(self.bank, LENGTH)
        return waves + level[:, None] * noise[(draws[:, 3] * (BANK - LENGTH)).astype(int)]


def _resample(spectra: np.ndarray, size: int) -> np.ndarray:
    """Waves of WORK samples in `size` samples: spectra complex64[n, WORK // 2 + 1] -> [n, size]."""
    kept = size // 2 + 1
    if kept <= spectra.shape[1]:
        spectra = spectra[:, :kept]
    return np.asarray(fft.irfft(spectra, size, axis=1)) * np.float32(size / WORK)
