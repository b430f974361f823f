"""Closed-form maps between two spaces, and the question whether to align or to predict."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA

from mm.evals import maps
from mm.evals.align_or_predict import directions, overlap


def spaces(rows=400, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 3))
    x = np.concatenate([z, 0.5 * rng.normal(size=(rows, 5))], 1) @ rng.normal(size=(8, 8))
    y = np.concatenate([z + 0.1 * rng.normal(size=z.shape), rng.normal(size=(rows, 5))], 1) @ rng.normal(size=(8, 8))  # fmt: skip
    return x, y + 3


def test_a_rotation_is_found():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 6)) * np.arange(1, 7)
    q = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    np.testing.assert_allclose(maps.procrustes(x, x @ q + 2)(x), x @ q + 2, atol=1e-9)


def test_ridge_without_strength_is_least_squares():
    x, y = spaces()
    both = np.concatenate([x, np.ones((len(x), 1))], 1)
    fitted = both @ np.linalg.lstsq(both, y, rcond=None)[0]
    np.testing.assert_allclose(maps.ridge(x, y, 0.0)(x), fitted, atol=1e-7)
    np.testing.assert_allclose(
        maps.ridge(x, y, 1e12)(x), np.tile(y.mean(0), (len(x), 1)), atol=1e-6
    )


def test_canonical_directions_are_those_of_scikit_learn():
    x, y = spaces()
    to_x, to_y = maps.canonical(x, y, 3, strength=0.0)
    a, b = CCA(3, max_iter=10_000, tol=1e-12).fit(x, y).transform(x, y)
    ours = [abs(np.corrcoef(to_x(x)[:, i], to_y(y)[:, i])[0, 1]) for i in range(3)]
    theirs = [abs(np.corrcoef(a[:, i], b[:, i])[0, 1]) for i in range(3)]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_shift_leaves_no_gap():
    x, y = spaces()
    np.testing.assert_allclose(maps.mean_shift(x, y)(x).mean(0), y.mean(0), atol=1e-9)


def test_subspaces_overlap():
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
    assert overlap(basis[:, :2], basis[:, :2] @ [[0, 1], [1, 0]]) == pytest.approx(1)
    assert overlap(basis[:, :2], basis[:, 2:4]) == pytest.approx(0)
    found = directions(*spaces(4000), 3)
    for kept in (found.align, found.predict, found.joint):
        np.testing.assert_allclose(kept.T @ kept, np.eye(3), atol=1e-9)
    assert found.correlations[2] > 0.9 > 0.1 > found.correlations[3]


def asked(*arguments):
    command = [sys.executable, "-m", "mm.evals.align_or_predict", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_two_files_are_compared(tmp_path):
    x, y = spaces()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    done = asked(tmp_path / "x.npy", tmp_path / "y.npy", "--k", 3)
    assert done.returncode == 0 and "overlap" in done.stdout and "next" in done.stdout
    np.save(tmp_path / "short.npy", y[:5])
    for arguments, said in (
        (("no.npy", tmp_path / "y.npy"), "no.npy: cannot be read"),
        ((tmp_path / "x.npy", tmp_path / "short.npy"), "400 and 5 rows"),
        ((tmp_path / "x.npy", tmp_path / "y.npy", "--k", 8), "--k=8: must be 1 .. 7"),
    ):
        done = asked(*arguments)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1
