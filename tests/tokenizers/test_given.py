"""Rows that are tokens already, and pictures that are read as pixels."""

import numpy as np
import pytest
from etils.epath import Path
from PIL import Image

from mm.errors import UserError
from mm.space import Dense, Modality, Sequence, Vocabulary
from mm.tokenizers.given import MEAN, STD, Given, given

WORDS = Modality(
    name="words", vocabulary=Vocabulary(name="words", size=9, eos=1), layout=Sequence(max_len=4)
)
DENSE = Modality(name="states", vocabulary=None, layout=Dense(shape=(3, 5)), predicted=False)
PIXELS = Modality(
    name="rgb", vocabulary=None, layout=Dense(shape=(6, 12), grid=(2, 3)), predicted=False
)


def test_ids_are_filled_up_and_keep_their_length():
    ids, length = Given(WORDS).encode([[3, 8], [2, 1]])
    np.testing.assert_array_equal(ids, [[3, 8, 0, 0], [2, 1, 0, 0]])
    np.testing.assert_array_equal(length, [2, 2])
    ids, length = Given(WORDS).encode((np.full((2, 4), 5), [1, 4]))
    assert ids.shape == (2, 4) and list(length) == [1, 4]
    values, length = Given(DENSE).encode(np.ones((2, 3, 5)))
    assert values.dtype == np.float32 and list(length) == [3, 3]


@pytest.mark.parametrize(
    ("m", "raw", "said"),
    [
        (WORDS, [[9, 1]], "outside 0 .. 8"),
        (WORDS, [[-1, 1]], "outside 0 .. 8"),
        (WORDS, [[0.5, 1.0]], "outside 0 .. 8"),
        (WORDS, [[1] * 5], "up to 4"),
        (DENSE, np.full((1, 3, 5), np.nan), "no number"),
        (DENSE, np.ones((1, 3, 4)), "up to 3, 5"),
        (PIXELS, np.zeros((1, 4, 6, 3), np.float32), "uint8"),
        (PIXELS, np.zeros((1, 6, 4, 3), np.uint8), "4, 6, 3"),
    ],
)
def test_what_does_not_fit_is_one_line(m, raw, said):
    with pytest.raises(UserError, match=said):
        given(m).encode(raw)


def test_patches_are_the_pixels_row_by_row(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    patches, length = given(PIXELS).encode(picture[None])
    assert patches.shape == (1, 6, 12) and list(length) == [6]
    for i, patch in enumerate(patches[0]):
        row, column = divmod(i, 3)
        own = picture[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = (own / 255 - MEAN) / STD
        np.testing.assert_allclose(patch, expected.reshape(-1), atol=1e-6)
    Image.fromarray(picture).save(tmp_path / "a.png")
    np.testing.assert_array_equal(given(PIXELS).read_file(Path(tmp_path / "a.png")), picture)
