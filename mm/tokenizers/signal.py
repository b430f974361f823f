"""Sound as frames of frequencies, and back: what audio tokenizers, judges and metrics share.

Everything but `resample` is pure JAX and runs inside jit. A wave of T samples has exactly
ceil(T / hop) frames: frame i is centred on samples i * hop .. (i + 1) * hop - 1, with zeros beyond
both ends, so that frames cut into equal groups belong to equal stretches of time.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import resample_poly

FLOOR = 1e-5
"""Power that log spectra start from: 50 dB below a mel band that holds a full-scale sine."""


def hann(n_fft: int) -> np.ndarray:
    """Periodic Hann window float32[n_fft]: its shifts by n_fft / k, k >= 2, sum to a constant."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)


def frames(wave_bt: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Overlapping stretches of a wave.

    Slices of whole hops are put side by side: several times faster on CPU than gathering by index.

    Args:
      wave_bt: float32[B, T]. n_fft: samples per frame, at least `hop`.
      hop: samples from frame to frame.

    Returns:
      float32[B, ceil(T / hop), n_fft].
    """
    count, parts = math.ceil(wave_bt.shape[1] / hop), math.ceil(n_fft / hop)
    before = (n_fft - hop) // 2
    after = (count + parts - 1) * hop - before - wave_bt.shape[1]
    hops = jnp.pad(wave_bt, ((0, 0), (before, after))).reshape(wave_bt.shape[0], -1, hop)
    return jnp.concatenate([hops[:, i : i + count] for i in range(parts)], axis=-1)[..., :n_fft]


def overlap_add(frames_bfn: jax.Array, hop: int, length: int) -> jax.Array:
    """Sums frames where they overlap: the transpose of `frames`.

    Args:
      frames_bfn: float32[B, F, n_fft]. length: samples T to return, at most F * hop.

    Returns:
      float32[B, T].
    """
    b, count, n_fft = frames_bfn.shape
    parts, before = math.ceil(n_fft / hop), (n_fft - hop) // 2
    padded = jnp.pad(frames_bfn, ((0, 0), (0, 0), (0, parts * hop - n_fft)))
    pieces = padded.reshape(b, count, parts, hop)
    hops = sum(jnp.pad(pieces[:, :, i], ((0, 0), (i, parts - 1 - i), (0, 0))) for i in range(parts))
    return jnp.reshape(hops, (b, -1))[:, before : before + length]


def stft(wave_bt: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Short-time Fourier transform under a Hann window.

    float32[B, T] -> complex64[B, ceil(T / hop), n_fft // 2 + 1].
    """
    return jnp.fft.rfft(frames(wave_bt, n_fft, hop) * hann(n_fft))


def istft(spectrum_bfk: jax.Array, hop: int, length: int) -> jax.Array:
    """The wave whose `stft` is nearest in squared error; where one has it exactly, its inverse.

    Args:
      spectrum_bfk: complex64[B, F, n_fft // 2 + 1]. hop: at most n_fft / 2.
      length: samples T, at most F * hop.

    Returns:
      float32[B, T].

    Source: Griffin and Lim 1984, equation 6.
    """
    n_fft = 2 * (spectrum_bfk.shape[-1] - 1)
    window = hann(n_fft)
    wave = overlap_add(jnp.fft.irfft(spectrum_bfk, n_fft) * window, hop, length)
    weight = overlap_add(
        jnp.broadcast_to(window**2, (1, spectrum_bfk.shape[1], n_fft)), hop, length
    )
    return wave / jnp.maximum(weight, 1e-8)


@functools.cache
def mel_filterbank(rate: int, n_fft: int, mels: int, low: float = 50.0) -> np.ndarray:
    """Triangular filters with a peak of 1, evenly spaced in mel from `low` Hz to half the rate.

    A filter so narrow that it misses all bins takes its nearest one.

    Args:
      rate: samples per second. mels: number of filters.

    Returns:
      float32[n_fft // 2 + 1, mels].

    Source: mel(f) = 2595 log10(1 + f / 700 Hz), O'Shaughnessy 1987; triangles as in HTK.
    """
    lowest, highest = (2595 * np.log10(1 + f / 700) for f in (low, rate / 2))
    edges = 700 * (10 ** (np.linspace(lowest, highest, mels + 2) / 2595) - 1)
    bins = np.arange(n_fft // 2 + 1)[:, None] * rate / n_fft
    lower, centre, upper = edges[:-2], edges[1:-1], edges[2:]
    triangles = np.minimum((bins - lower) / (centre - lower), (upper - bins) / (upper - centre))
    bank = np.maximum(triangles, 0)
    missed = np.flatnonzero(bank.max(0) == 0)
    bank[np.abs(bins - centre)[:, missed].argmin(0), missed] = 1
    return bank.astype(np.float32)


def log_mel(wave_bt: jax.Array, rate: int, n_fft: int, hop: int, mels: int) -> jax.Array:
    """Natural logarithm of the power in mel bands.

    Power is relative to a full-scale sine, which has 1 in its own bin; `FLOOR` is added to it.

    Args:
      wave_bt: float32[B, T] in [-1, 1]. rate: samples per second. n_fft, hop: samples. mels: bands.

    Returns:
      float32[B, ceil(T / hop), mels].
    """
    power = jnp.square(magnitude(wave_bt, n_fft, hop))
    bank = jnp.asarray(mel_filterbank(rate, n_fft, mels))
    banded = power.reshape(-1, power.shape[-1]) @ bank
    return jnp.log(banded + FLOOR).reshape(*power.shape[:-1], mels)


def magnitude(wave_bt: jax.Array, n_fft: int, hop: int) -> jax.Array:
    """Absolute values of the `stft`, 1 for a full-scale sine: float32[B, F, n_fft // 2 + 1]."""
    spectrum = stft(wave_bt, n_fft, hop) * (2 / hann(n_fft).sum())
    return jnp.sqrt(jnp.square(spectrum.real) + jnp.square(spectrum.imag))


def griffin_lim(
    magnitude_bfk: jax.Array, hop: int, length: int, *, iterations: int = 32, momentum: float = 0.99
) -> jax.Array:
    """A wave with (nearly) the given magnitudes: phases are found by going back and forth.

    Starts from the same random phases every time, so equal magnitudes give equal waves.

    Args:
      magnitude_bfk: float32[B, F, n_fft // 2 + 1], scaled as by `magnitude`.
      length: samples T, at most F * hop.
      momentum: 0 is the algorithm of Griffin and Lim; near 1 it converges several times faster.

    Returns:
      float32[B, T].

    Source: Perraudin, Balazs and Sondergaard 2013, algorithm 2 ("fast Griffin-Lim").
    """
    n_fft = 2 * (magnitude_bfk.shape[-1] - 1)
    wanted = magnitude_bfk * (hann(n_fft).sum() / 2)
    angle = jax.random.uniform(jax.random.key(0), wanted.shape[1:], maxval=2 * jnp.pi)
    first = wanted * jnp.exp(1j * angle)

    def body(_: int, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        guess, before = carry
        consistent = stft(istft(wanted * unit(guess), hop, length), n_fft, hop)
        return consistent + momentum * (consistent - before), consistent

    guess, _ = jax.lax.fori_loop(0, iterations, body, (first, jnp.zeros_like(first)))
    return istft(wanted * unit(guess), hop, length)


def unit(spectrum: jax.Array) -> jax.Array:
    """Complex numbers of absolute value 1 in the same directions; 0 stays 0."""
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    return spectrum * jax.lax.rsqrt(jnp.maximum(power, 1e-20))


def resample(wave: np.ndarray, rate: int, to_rate: int) -> np.ndarray:
    """A wave float[T] at `rate` -> float32[ceil(T * to_rate / rate)] at `to_rate` (polyphase)."""
    if rate == to_rate:
        return wave.astype(np.float32)
    common = math.gcd(rate, to_rate)
    return resample_poly(wave, to_rate // common, rate // common).astype(np.float32)
