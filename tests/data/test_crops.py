"""Crops: the same place in every map of an example, a function of (seed, example, number)."""

import numpy as np
import pytest

from mm.data.crops import Crops
from mm.errors import UserError

CROPS = Crops(count=3, pictures=("rgb", "depth"), labels=("kinds",), area=(0.2, 0.6), flip=True)


def ramps(side: int, n: int = 6) -> np.ndarray:
    """float32[n, side, side, 2]: where a pixel's centre lies, as shares of the picture."""
    at = (np.arange(side) + 0.5) / side
    return np.tile(np.stack(np.meshgrid(at, at, indexing="ij"), -1), (n, 1, 1, 1)).astype(
        np.float32
    )


def boxes(n: int = 6) -> np.ndarray:
    return CROPS.draw(5, np.arange(n))[:, 1]


def test_a_crop_shows_the_same_place_in_maps_of_any_size():
    """Values that say where they are: the corners of what is seen follow from the box alone."""
    for box, large, small in zip(boxes(), CROPS.cropped("rgb", ramps(64), boxes()), CROPS.cropped("depth", ramps(16), boxes()), strict=True):  # fmt: skip
        top, left, height, width, flipped = box
        for made, side in ((large, 64), (small, 16)):
            inside = (np.arange(side) + 0.5) / side
            columns = inside[::-1] if flipped else inside
            wide = slice(
                2, -2
            )  # beyond the border of the picture there is nothing to interpolate with
            np.testing.assert_allclose(made[wide, 0, 0], (top + height * inside)[wide], atol=1e-5)
            np.testing.assert_allclose(made[0, wide, 1], (left + width * columns)[wide], atol=1e-5)
    assert {bool(b[4]) for b in CROPS.draw(5, np.arange(20)).reshape(-1, 5)} == {True, False}


def test_labels_are_never_mixed():
    rng = np.random.default_rng(0)
    kinds = rng.choice(np.array([3, 90], np.int32), (6, 20, 20))
    made = CROPS.cropped("kinds", kinds, boxes())
    assert made.dtype == np.int32 and set(np.unique(made)) == {3, 90}
    assert not np.array_equal(made, kinds)
    whole = np.array([[0, 0, 1, 1, 0]] * 6)
    assert np.array_equal(CROPS.cropped("kinds", kinds, whole), kinds)
    pictures = rng.integers(0, 256, (6, 9, 7, 3), np.uint8)
    assert np.array_equal(CROPS.cropped("rgb", pictures, whole), pictures)
    mirrored = np.array([[0, 0, 1, 1, 1]] * 6)
    assert np.array_equal(CROPS.cropped("rgb", pictures, mirrored), pictures[:, :, ::-1])


def test_a_box_depends_on_seed_example_and_number_alone():
    few, many = CROPS.draw(5, np.array([7, 3])), CROPS.draw(5, np.arange(10))
    assert np.array_equal(few, many[[7, 3]])
    assert len(np.unique(many[:, :, 0])) == 30 and not np.array_equal(
        many, CROPS.draw(6, np.arange(10))
    )
    area = many[..., 2] * many[..., 3]
    assert area.min() >= 0.2 and area.max() <= 0.6
    assert (many[..., :2] + many[..., 2:4]).max() <= 1


@pytest.mark.parametrize(
    "changed", [{"count": 0}, {"area": (0.0, 1.0)}, {"area": (0.9, 0.5)}, {"pictures": (), "labels": ()}, {"labels": ("rgb",)}]
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(changed):
    with pytest.raises(UserError, match=r"config\.data\.crops"):
        Crops(**{"pictures": ("rgb",)} | changed).validate()
    with pytest.raises(ValueError, match="no rows of pictures"):
        CROPS.cropped("rgb", np.zeros((6, 40)), boxes())
