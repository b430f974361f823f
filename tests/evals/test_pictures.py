"""What is shown of a sample that is neither picture, sound nor text."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from mm.evals import pictures
from mm.report import markup


def shown(path) -> np.ndarray:
    """The picture of a report's tile, in greys."""
    data = re.search(r"base64,([^\"]+)", markup.tile(path))[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))


def test_an_array_is_greys(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[0.0, 1.0], [-1.0, 0.0]]))
    seen = np.asarray(pictures.greys(tmp_path / "a.npy", 8))
    np.testing.assert_array_equal(seen[::4, ::4], [[127, 0], [255, 127]])
    tile = np.asarray(pictures.tile(tmp_path / "a.npy", 8).convert("L")).astype(int)
    assert np.abs(tile[::4, ::4] - [[127, 0], [255, 127]]).max() <= 1
    page = shown(tmp_path / "a.npy")
    assert page.shape == (112, 112) and page[60:, :50].mean() > 250 and page[:50, 60:].mean() < 5


@pytest.mark.parametrize(
    "array",
    [np.zeros((5, 3)), np.arange(7), np.ones((2, 3, 4, 5), bool), np.full((2, 2), 7, np.int8)],
)
def test_arrays_of_any_shape_have_a_picture(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    assert pictures.tile(tmp_path / "a.npy", 60).size == (60, 60)
    assert shown(tmp_path / "a.npy").shape == (112, 112)


def test_other_files_are_named_and_damaged_ones_left_out(tmp_path):
    (tmp_path / "walk.mid").write_bytes(bytes(range(256)))
    assert "walk.mid" in markup.tile(tmp_path / "walk.mid")
    for name, contents in {"a.npy": b"seven", "b.png": b"", "c.txt": b"\xff\xfe"}.items():
        (tmp_path / name).write_bytes(contents)
    np.save(tmp_path / "d.npy", np.array([{}, None]))
    for name in ("a.npy", "b.png", "c.txt", "d.npy", "none.npy"):
        assert "unreadable" in markup.tile(tmp_path / name)
        assert pictures.tile(tmp_path / name, 60).size == (60, 60)
