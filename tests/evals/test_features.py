import numpy as np
import pytest
from sklearn.decomposition import PCA

from mm.evals.features import Flat, LogSpectrogram, fit


def low_rank(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 10)) * 2.0 ** -np.arange(10) @ rng.normal(size=(10, 30)) + 5


def test_components_span_the_principal_subspace():
    x = low_rank()
    ours, exact = fit(Flat(), x, dims=4), PCA(4, svd_solver="full").fit(x)
    basis = ours.components / np.linalg.norm(ours.components, axis=0)
    angles = np.linalg.svd(basis.T @ exact.components_.T)[1]
    np.testing.assert_allclose(angles, 1, atol=1e-4)
    np.testing.assert_allclose(ours.mean, exact.mean_, rtol=1e-5)


def test_distances_keep_the_meaning_of_the_front_end():
    x = low_rank()
    points = fit(Flat(), x, dims=30)(x)
    assert np.square(points).sum(1).mean() == pytest.approx(1, rel=1e-3)
    near = np.linalg.norm(points[:20, None] - points[None, :20], axis=-1)
    real = np.linalg.norm(x[:20, None] - x[None, :20], axis=-1)
    off = ~np.eye(20, dtype=bool)
    assert np.ptp((near / np.where(off, real, 1))[off]) < 1e-3  # one factor for all


def test_fewer_rows_than_dimensions_and_constant_rows_do_no_harm():
    assert fit(Flat(), low_rank(5))(low_rank(3, seed=1)).shape == (3, 5)
    assert np.isfinite(fit(Flat(), np.ones((6, 4)))(np.ones((2, 4)))).all()


def test_a_spectrogram_ignores_level_and_phase_but_not_pitch():
    t = np.arange(2000) / 8000
    tone = lambda hz, phase=0.0, gain=1.0: gain * np.sin(2 * np.pi * hz * t + phase)
    front = LogSpectrogram()
    a, quiet, shifted, higher = front(
        np.stack([tone(440), tone(440, gain=0.05), tone(440, phase=1.3), tone(1200)])
    )
    far = np.abs(a - higher).mean()
    assert np.abs(a - quiet).mean() < 0.01 * far
    assert np.abs(a - shifted).mean() < 0.2 * far


def test_a_spectrogram_finds_the_band_and_takes_silence():
    front = LogSpectrogram(frame=64, hop=64, bands=8, pool=1)
    t = np.arange(640)
    rows = np.stack([np.sin(2 * np.pi * (4 * b + 2.5) / 64 * t) for b in range(8)] + [0 * t])
    cells = front(rows).reshape(9, 10, 8)
    assert cells[:8].mean(1).argmax(1).tolist() == list(range(8))
    assert np.isfinite(cells).all() and cells.min() >= front.floor_db - 1e-3
