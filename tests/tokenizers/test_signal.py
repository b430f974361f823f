"""Transforms against slow NumPy references, exact inverses, and what phases must achieve."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.tokenizers import signal

RATE = 8000


def voice(seed: int, length: int = RATE) -> np.ndarray:
    """Like a vowel: harmonics of a moving pitch, and a little breath; float32[length]."""
    rng = np.random.default_rng(seed)
    t = np.arange(length) / RATE
    pitch = (
        2 * np.pi * np.cumsum(rng.uniform(90, 220) * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))) / RATE
    )
    tone = sum(np.sin(h * pitch + rng.uniform(0, 6)) / h for h in range(1, 12))
    swell = np.clip(np.sin(np.pi * t / t[-1]), 0, None)
    return (0.2 * tone * swell + 0.002 * rng.standard_normal(length)).astype(np.float32)


def slow_frames(wave: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    before = (n_fft - hop) // 2
    rows = []
    for i in range(math.ceil(len(wave) / hop)):
        places = range(i * hop - before, i * hop - before + n_fft)
        rows.append([wave[p] if 0 <= p < len(wave) else 0.0 for p in places])
    return np.array(rows)


def slow_stft(wave: np.ndarray, n_fft: int, hop: int) -> np.ndarray:
    n = np.arange(n_fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / n_fft)
    basis = np.exp(-2j * np.pi * np.outer(n, np.arange(n_fft // 2 + 1)) / n_fft)
    return (slow_frames(wave, n_fft, hop) * window) @ basis


sizes = st.sampled_from([(256, 100), (256, 128), (64, 32), (32, 7), (16, 16), (20, 9)])


@settings(max_examples=12, deadline=None)
@given(sizes, st.integers(1, 700), st.integers(0, 99))
def test_stft_is_the_sum_it_is_defined_as(size, length, seed):
    wave = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    found = signal.stft(jnp.asarray(wave[None]), *size)[0]
    np.testing.assert_allclose(found, slow_stft(wave, *size), atol=2e-4)


@settings(max_examples=12, deadline=None)
@given(sizes.filter(lambda s: s[0] >= 2 * s[1]), st.integers(1, 700), st.integers(0, 99))
def test_istft_inverts_stft(size, length, seed):
    wave = np.random.default_rng(seed).standard_normal((2, length)).astype(np.float32)
    back = signal.istft(signal.stft(jnp.asarray(wave), *size), size[1], length)
    np.testing.assert_allclose(back, wave, atol=2e-4)


def test_overlap_add_is_the_transpose_of_frames():
    rng = np.random.default_rng(0)
    wave = jnp.asarray(rng.standard_normal((1, 530)), jnp.float32)
    framed = signal.frames(wave, 64, 25)
    other = jnp.asarray(rng.standard_normal(framed.shape), jnp.float32)
    transposed = jax.linear_transpose(lambda w: signal.frames(w, 64, 25), wave)(other)[0]
    np.testing.assert_allclose(signal.overlap_add(other, 25, 530), transposed, atol=1e-5)


def slow_filterbank(rate: int, n_fft: int, mels: int, low: float) -> np.ndarray:
    def mel(f):
        return 2595 * math.log10(1 + f / 700)

    edges = []
    for i in range(mels + 2):
        m = mel(low) + (mel(rate / 2) - mel(low)) * i / (mels + 1)
        edges.append(700 * (10 ** (m / 2595) - 1))
    bank = np.zeros((n_fft // 2 + 1, mels))
    for k in range(n_fft // 2 + 1):
        f = k * rate / n_fft
        for m in range(mels):
            left, top, right = edges[m : m + 3]
            if left < f <= top:
                bank[k, m] = (f - left) / (top - left)
            elif top < f < right:
                bank[k, m] = (right - f) / (right - top)
    return bank


def test_log_mel_is_the_sum_it_is_defined_as():
    wave = voice(0, 1000)
    power = np.abs(slow_stft(wave, 256, 100) * 2 / (256 / 2)) ** 2
    expected = np.log(power @ slow_filterbank(RATE, 256, 20, 50.0) + 1e-5)
    found = signal.log_mel(jnp.asarray(wave[None]), RATE, 256, 100, 20)
    assert found.shape == (1, 10, 20)
    np.testing.assert_allclose(found[0], expected, atol=1e-3)


@pytest.mark.parametrize("mels", [20, 40, 80, 128])
def test_no_mel_band_is_deaf(mels):
    bank = signal.mel_filterbank(RATE, 256, mels)
    assert (bank.max(0) > 0).all()
    heard = np.arange(129) * RATE / 256 > 50
    assert (
        bank[heard][:-1].sum(1) > 0
    ).all() or mels > 80  # with more bands than bins some overlap nothing


def test_a_full_scale_sine_has_magnitude_one():
    t = np.arange(RATE) / RATE
    found = signal.magnitude(jnp.asarray(np.sin(2 * np.pi * 1000 * t)[None], jnp.float32), 256, 100)
    assert found[0, 40].argmax() == 32  # 1000 Hz / (8000 Hz / 256)
    np.testing.assert_allclose(found[0, 40, 32], 1, atol=1e-4)


def spectral_error(magnitude: jax.Array, wave: jax.Array) -> float:
    """Relative error of a wave's magnitudes."""
    return float(
        jnp.linalg.norm(signal.magnitude(wave, 256, 100) - magnitude) / jnp.linalg.norm(magnitude)
    )


def test_griffin_lim_finds_phases_that_fit():
    magnitude = signal.magnitude(jnp.asarray([voice(s) for s in range(3)]), 256, 100)
    errors = {
        n: spectral_error(magnitude, signal.griffin_lim(magnitude, 100, RATE, iterations=n))
        for n in (0, 8, 32)
    }
    assert errors[8] < 0.5 * errors[0]
    assert errors[32] < 0.8 * errors[8]
    plain = signal.griffin_lim(magnitude, 100, RATE, iterations=32, momentum=0.0)
    assert errors[32] < spectral_error(magnitude, plain)


def test_griffin_lim_repeats_itself_whatever_else_is_in_the_batch():
    magnitude = signal.magnitude(jnp.asarray([voice(s) for s in range(3)]), 256, 100)
    together = signal.griffin_lim(magnitude, 100, RATE, iterations=4)
    np.testing.assert_array_equal(together, signal.griffin_lim(magnitude, 100, RATE, iterations=4))
    alone = signal.griffin_lim(magnitude[1:2], 100, RATE, iterations=4)
    np.testing.assert_allclose(alone[0], together[1], atol=1e-4)


def test_griffin_lim_of_silence_is_silence():
    wave = signal.griffin_lim(jnp.zeros((1, 80, 129)), 100, RATE, iterations=2)
    assert np.array_equal(wave, np.zeros((1, RATE)))


@pytest.mark.parametrize("rate", [4000, 11025, 16000, 44100, 48000])
def test_resample_keeps_tones_and_drops_what_cannot_be_kept(rate):
    t = np.arange(rate) / rate
    tone = np.sin(2 * np.pi * 440 * t)
    found = signal.resample(tone, rate, RATE)
    assert found.dtype == np.float32 and len(found) == RATE
    expected = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    np.testing.assert_allclose(found[400:-400], expected[400:-400], atol=0.01)
    if rate > 2 * 6000:
        alias = signal.resample(np.sin(2 * np.pi * 6000 * t), rate, RATE)
        assert np.abs(alias[400:-400]).max() < 0.01
