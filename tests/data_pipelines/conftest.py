"""The shipped digits, built once for all tests, and small made-up ones that tests may damage."""

import os
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.digit_assets import SPEAKERS, write_assets
from data_pipelines.digits import VALIDATION_IMAGES, Digits
from mm.data.records import CorruptLog


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A cache that the shipped digits are built in once; workers of one test run share it."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "built"


@pytest.fixture(scope="session")
def digits(built) -> Digits:
    """The source with its default settings, open."""
    source = Digits()
    source.open(built, CorruptLog(0))
    return source


@pytest.fixture(scope="session")
def digits_forms(built) -> Digits:
    """The source with four forms of every training image, open."""
    source = Digits(modalities=("image", "text"), image_forms=4)
    source.open(built, CorruptLog(0))
    return source


@pytest.fixture(scope="session")
def small_inputs(tmp_path_factory) -> tuple[Path, Path]:
    """Arrays in the form of the original ones, with 70 training images and 2 training takes."""
    folder, rng = tmp_path_factory.mktemp("inputs"), np.random.default_rng(0)
    images = {}
    for split, n in {"train": 70 + VALIDATION_IMAGES, "test": 30}.items():
        images[f"{split}_labels"] = (np.arange(n) % 10).astype(np.uint8)
        images[f"{split}_images"] = np.zeros((n, 28, 28), np.uint8)
        bars = rng.integers(1, 255, (n, 12, 3), np.uint8)
        images[f"{split}_images"][:, 8:20, 12:15] = bars
    np.savez(folder / "mnist.npz", **images)
    take, speaker, digit = (a.ravel() for a in np.indices((12, len(SPEAKERS), 10)))
    lengths = rng.integers(300, 900, len(take))
    lengths[::100] = 8500
    np.savez(
        folder / "fsdd.npz",
        samples=rng.integers(-3000, 3000, lengths.sum()).astype(np.int16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        digit=digit.astype(np.uint8),
        speaker=speaker.astype(np.uint8),
        index=take.astype(np.uint8),
        speaker_names=np.array(SPEAKERS),
        rate=np.array([8000], np.int32),
    )
    return folder / "mnist.npz", folder / "fsdd.npz"


@pytest.fixture(scope="session")
def small_assets(small_inputs, tmp_path_factory) -> Path:
    """Assets of the small inputs; tests that damage them copy them first."""
    folder = tmp_path_factory.mktemp("assets")
    write_assets(*small_inputs, folder)
    return folder
