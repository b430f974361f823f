"""Handwritten images and the distorted forms of them that training may see.

A form is turned, sheared, scaled and shifted a little, as another hand would have written it. Forms are made when
rows are asked for, so that none has to be stored; form 0 is the image itself.
"""

import json

import numpy as np

from mm.data.columns import digest

FORMS_VERSION = 1
"""Part of the column's fingerprint: raise it when a change below changes the rows."""

TURN = np.deg2rad(12.0)
SHEAR = 0.15
SCALE = 0.12
SHIFT = 1.5  # pixels
CHUNK = 1024  # images at a time, 20 MB of coordinates


class Pictures:
    """Column of images: row = image x forms + form. See `mm.data.Column`."""

    def __init__(self, images: np.ndarray, *, forms: int, seed: int):
        """
        Args:
          images: uint8[n, h, w], 0 = background.
          forms: rows per image; the first is the image.
          seed: decides the distortions.
        """
        self.images, self.forms = images, forms
        made = [FORMS_VERSION, TURN, SHEAR, SCALE, SHIFT, forms, seed]
        self.fingerprint = digest(images, json.dumps(made))
        rng = np.random.default_rng([seed, FORMS_VERSION])
        self.draws = rng.uniform(-1, 1, (len(images), forms, 6)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.images) * self.forms

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Rows int[n] -> uint8[n, h, w]."""
        image, form = np.divmod(np.asarray(rows, np.int64), self.forms)
        made = self.images[image]
        changed = np.flatnonzero(form > 0)
        for start in range(0, len(changed), CHUNK):
            part = changed[start : start + CHUNK]
            made[part] = distorted(made[part], self.draws[image[part], form[part]])
        return made


def distorted(images: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Images under affine maps about their centre, read bilinearly, zero beyond the border.

    Args:
      images: uint8[n, h, w].
      draws: float32[n, 6] in -1 .. 1: turn, shear, two scales, two shifts, as shares of their limits; all 0
        leaves an image as it is.

    Returns:
      uint8[n, h, w].
    """
    n, h, w = images.shape
    angle, shear = TURN * draws[:, 0], SHEAR * draws[:, 1]
    sy, sx = (1 + SCALE * draws[:, 2:4]).T
    cos, sin = np.cos(angle), np.sin(angle)
    # where a pixel of the result comes from: turn x shear x scale
    matrix = np.stack([(cos - sin * shear) * sy, -sin * sx, (sin + cos * shear) * sy, cos * sx], -1)
    centre = np.array([(h - 1) / 2, (w - 1) / 2], np.float32)
    at = np.stack(np.meshgrid(np.arange(h), np.arange(w), indexing="ij")).reshape(2, -1)
    at = at.astype(np.float32) - centre[:, None]
    source = matrix.reshape(n, 2, 2).astype(np.float32) @ at
    source += (centre + SHIFT * draws[:, 4:])[..., None]
    low = np.floor(source)
    fy, fx = (source - low).swapaxes(0, 1)
    # one pixel of zeros around, to which everything outside is clipped
    y, x = (np.clip(low.swapaxes(0, 1) + 1, 0, np.array([h, w])[:, None, None])).astype(np.int32)
    flat = np.pad(images, ((0, 0), (1, 1), (1, 1))).reshape(-1)
    first = (np.arange(n, dtype=np.int32) * ((h + 2) * (w + 2)))[:, None] + y * (w + 2) + x
    top = flat[first] * (1 - fx) + flat[first + 1] * fx
    bottom = flat[first + w + 2] * (1 - fx) + flat[first + w + 3] * fx
    made = top * (1 - fy) + bottom * fy
    # beyond the border all four corners are clipped onto the zeros or onto the last row, which must not count
    inside = ((source > -1) & (source < np.array([h, w])[:, None])).all(1)
    return np.round(made * inside).astype(np.uint8).reshape(n, h, w)
