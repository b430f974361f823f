"""Distorted forms of images: what they are, and that form 0 is the image."""

import numpy as np
import pytest
from scipy import ndimage

from data_pipelines.digit_assets import ASSETS, read_images
from data_pipelines.digit_images import SCALE, SHEAR, SHIFT, TURN, Pictures, distorted

IMAGES = read_images(ASSETS, "test")[:40]


def reference(image, draw):
    """The same map by scipy, one image at a time."""
    angle, shear = TURN * draw[0], SHEAR * draw[1]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, 0], [shear, 1]]) @ np.diag(1 + SCALE * draw[2:4])
    centre = np.array([13.5, 13.5])
    offset = centre - matrix @ centre + SHIFT * draw[4:]
    # what lies between the last pixel and the zeros beyond it counts too
    padded = np.pad(image.astype(np.float64), 4)
    offset = offset + 4 - matrix @ np.array([4.0, 4.0])
    return ndimage.affine_transform(padded, matrix, offset, order=1)[4:-4, 4:-4]


def test_it_is_the_affine_map():
    draws = np.random.default_rng(0).uniform(-1, 1, (len(IMAGES), 6)).astype(np.float32)
    made = distorted(IMAGES, draws)
    for image, draw, row in zip(IMAGES, draws, made, strict=True):
        assert np.abs(reference(image, draw) - row).max() <= 0.6
    assert np.array_equal(distorted(IMAGES, np.zeros((len(IMAGES), 6), np.float32)), IMAGES)


def test_nothing_comes_in_from_beyond_the_border():
    full = np.full((1, 28, 28), 255, np.uint8)
    draws = np.array([[0, 0, 1, 1, 1, 1]], np.float32)
    expected = reference(full[0], draws[0])
    assert np.abs(distorted(full, draws)[0] - expected).max() <= 0.6


def test_rows_are_the_image_and_its_forms_whatever_is_asked_for_with_them():
    column = Pictures(IMAGES, forms=3, seed=1)
    rows = column[np.arange(len(column))]
    assert len(column) == 120 and np.array_equal(rows[::3], IMAGES)
    some = np.array([5, 100, 4, 4, 30])
    assert np.array_equal(column[some], rows[some])
    changed = np.delete(rows.reshape(40, 3, 28, 28), 0, 1)
    assert all((f != i).any() for image, i in zip(changed, IMAGES, strict=True) for f in image)
    assert np.array_equal(Pictures(IMAGES, forms=3, seed=1)[some], rows[some])
    other = Pictures(IMAGES, forms=3, seed=2)
    assert other.fingerprint != column.fingerprint and (other[some] != rows[some]).any()


@pytest.mark.parametrize("split, forms", [("train", 4), ("test", 1)])
def test_examples_are_forms_of_every_image_and_captions_say_what_they_show(
    digits_forms, split, forms
):
    from data_pipelines.digit_captions import measure_facts, read_facts

    order = digits_forms.order(split, seed=0, epoch=1)
    columns = digits_forms.columns(split)
    count = len(columns["image"]) // forms
    assert np.array_equal(np.sort(order["image"] // forms), np.arange(count))
    assert len(np.unique(order["image"] % forms)) == forms
    assert np.array_equal(
        digits_forms.items(split, "text"), np.arange(2 * forms * count) // (2 * forms)
    )
    kinds = digits_forms.kinds(split, "image")
    assert (kinds == "clean").sum() == count
    captions = order["text"][order["text"] % 2 == 1][:50]
    for row in captions:
        image = columns["image"][np.array([row // 2])][0]
        assert read_facts(columns["text"][np.array([row])][0]) == measure_facts(image)
