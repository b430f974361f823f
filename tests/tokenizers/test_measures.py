"""Measures against slow, obvious references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mm.tokenizers import measures


def slow_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """One window of one channel at a time. Wang et al. 2004."""
    x = np.arange(11) - 5
    window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * 1.5**2))
    window /= window.sum()
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            m, n = (window * p).sum(), (window * q).sum()
            var_p, var_q = (window * (p - m) ** 2).sum(), (window * (q - n) ** 2).sum()
            both = (window * (p - m) * (q - n)).sum()
            found.append(
                (2 * m * n + 1e-4) * (2 * both + 9e-4) / ((m**2 + n**2 + 1e-4) * (var_p + var_q + 9e-4))
            )  # fmt: skip
    return float(np.mean(found))


def test_structural_similarity_against_a_window_at_a_time():
    rng = np.random.default_rng(0)
    a = rng.random((2, 13, 12, 2))
    b = np.clip(a + 0.2 * rng.normal(size=a.shape), 0, 1)
    found = jax.jit(measures.ssim)(jnp.asarray(b, jnp.float32), jnp.asarray(a, jnp.float32))
    wanted = [np.mean([slow_ssim(a[i, ..., c], b[i, ..., c]) for c in (0, 1)]) for i in (0, 1)]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(jax.jit(measures.ssim)(a, a), 1, atol=1e-6)


def test_peak_signal_to_noise():
    x = np.zeros((2, 3, 4, 4, 1), np.float32)
    out = x.copy()
    out[0] += 0.1
    np.testing.assert_allclose(measures.psnr(out, x), [20, 100], rtol=1e-5)
    np.testing.assert_allclose(measures.frame_psnr(out, x)[0], [20, 20, 20], rtol=1e-5)


def test_scale_invariant_distortion_is_that_of_what_is_orthogonal():
    t = np.arange(800) / 800
    x, noise = np.sin(2 * np.pi * 5 * t), np.sin(2 * np.pi * 7 * t)
    waves = jnp.asarray([x, 3 * x + 0.3 * noise, -x + noise, noise], jnp.float32)
    found = jax.jit(measures.si_sdr)(waves, jnp.asarray([x] * 4, jnp.float32))
    assert float(found[0]) > 60
    np.testing.assert_allclose(found[1:3], [20, 0], atol=1e-3)
    assert float(found[3]) < -60
    assert np.isnan(measures.si_sdr(waves[:1], jnp.zeros((1, 800))))[0]


def test_log_spectra_differ_by_decibels_and_silence_is_left_out():
    t = np.arange(4000) / 8000
    tone = np.sin(2 * np.pi * 1000 * t)
    x = jnp.asarray([tone, 0 * t, np.where(t < 0.25, tone, 0)], jnp.float32)
    distance = jax.jit(measures.log_spectral_distance)
    found = np.asarray(distance(x, x))
    assert np.isnan(found[1]).all() and np.nanmax(found) < 1e-3
    assert not np.isnan(found[0]).any()
    assert 0.4 < np.isnan(found[2]).mean() < 0.5
    noise = np.random.default_rng(0).normal(size=(3, 4000)).astype(np.float32)
    assert np.median(distance(noise / 2, noise)) == pytest.approx(20 * np.log10(2), abs=0.2)
    mean = jax.jit(lambda out, x: measures.spectral(out, x, (64, 256)))(noise / 2, noise)
    assert float(mean[0]) == pytest.approx(np.log(2), abs=0.03)


def test_classes_are_counted_over_the_whole_set():
    raw = np.array([[0, 0, 1], [1, 1, 3]])
    decoded = np.array([[0, 1, 1], [1, 0, 3]])
    figures = measures.of_labels(raw, decoded, 5)
    assert figures == {"miou": pytest.approx((1 / 3 + 2 / 4 + 1) / 3), "pixel_accuracy": 4 / 6}


def test_masks_overlap_by_what_both_have():
    raw, made = np.zeros((3, 4, 4), bool), np.zeros((3, 4, 4), bool)
    raw[0, :2], made[0, 1:3], raw[1, 0] = True, True, True
    np.testing.assert_allclose(measures.intersection_over_union(made, raw), [1 / 3, 0, 1])
    assert measures.averaged(
        measures.intersection_over_union, raw, made
    ) == pytest.approx(4 / 9)  # fmt: skip


def test_terms_leave_out_what_is_nan_and_so_do_figures():
    total, count = measures.summed(jnp.array([1.0, jnp.nan, 2.0]))
    assert (float(total), float(count)) == (3, 2)
    first = lambda out, x: jnp.where(x[:, 0] > 0, out[:, 0], jnp.nan)
    raw = np.ones((600, 2), np.float32)
    raw[:100] = 0
    assert measures.averaged(first, raw, 3 * raw) == 3
    assert measures.averaged(first, 0 * raw, raw) is None


def test_cosines_and_smooth_distances():
    x = np.array([[3.0, 4], [1, 0], [0, 0]], np.float32)
    out = np.array([[4.0, 3], [-2, 0], [1, 1]], np.float32)
    found = np.asarray(measures.cosine(out, x))
    np.testing.assert_allclose(found[:2], [24 / 25, -1], atol=1e-6)
    assert np.isnan(found[2])
    slope = jax.grad(lambda o: measures.summed(measures.cosine(o, x))[0])(jnp.zeros((3, 2)))
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(measures.smooth_l1(jnp.array([0.5, -1, -3])), [0.125, 0.5, 2.5])


def test_retrieval_is_kept_where_rows_still_find_themselves():
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(300, 8)).astype(np.float32)
    kept = measures.of_vectors(raw, 2 * raw)
    assert kept == {
        "cosine": pytest.approx(1),
        "retrieved": 1,
        "retrieved_before": 1,
        "neighbour_kept": 1,
    }
    lost = measures.of_vectors(raw, rng.normal(size=raw.shape).astype(np.float32))
    assert lost["retrieved"] < 0.05 and lost["neighbour_kept"] < 0.05
    raw[1] = raw[0]  # neither finds itself before the other
    twice = measures.of_vectors(raw, raw)
    assert twice["retrieved_before"] == twice["retrieved"] == pytest.approx(298 / 300)
