"""Crops that all pictures and maps of an example share: a pixel of each still shows the same place.

They are made once, by --mode=tokenize: tokens cannot be cropped.
"""

import dataclasses
from typing import Any

import numpy as np

from mm.errors import UserError


@dataclasses.dataclass(kw_only=True, slots=True)
class Crops:
    """How many crops are tokenized of a training example, and which. Other splits stay whole.

    What is not named here (captions, sounds) is the same in all crops of an example; leave out what says where things
    are (boxes, poses), and do not flip where left and right are told.

    Attributes:
      count: of each example; crop k of example i becomes example i * count + k.
      pictures: modalities that are cropped and brought back to their size bilinearly: arrays [n, H, W] or [n, H, W, C].
      labels: likewise of maps whose values are names: the nearest one is taken.
      area: least and largest share of the picture's area; a crop has the picture's proportions.
      flip: half of them are mirrored, left to right.
    """

    count: int = 1
    pictures: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    area: tuple[float, float] = (0.4, 1.0)
    flip: bool = False

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense."""
        low, high = self.area
        if self.count < 1 or not 0 < low <= high <= 1:
            raise UserError(
                f"config.data.crops: count={self.count}, area={self.area}: count >= 1, 0 < least <= largest <= 1"
            )
        if not (self.pictures or self.labels) or set(self.pictures) & set(self.labels):
            raise UserError(
                f"config.data.crops: pictures={self.pictures}, labels={self.labels}: name what is cropped, once"
            )

    def draw(self, seed: int, examples: np.ndarray) -> np.ndarray:
        """The boxes of these examples' crops: a function of seed, example and number of the crop alone.

        Returns:
          float64[n, count, 5]: top, left, height, width, all as shares of the picture's, and 1 where it is mirrored.
        """
        drawn = np.stack([np.random.default_rng([seed, 3, e]).random((self.count, 4)) for e in examples.tolist()])  # fmt: skip
        low, high = self.area
        side = np.sqrt(low + (high - low) * drawn[..., 0])
        top, left = drawn[..., 1] * (1 - side), drawn[..., 2] * (1 - side)
        flipped = (drawn[..., 3] < 0.5) & self.flip
        return np.stack([top, left, side, side, flipped], -1)

    def cropped(self, name: str, rows: Any, boxes: np.ndarray) -> Any:
        """Rows [n, H, W, ...] of a modality, each in its box float[n, 5]; what is not named here as it is.

        Raises:
          ValueError: rows that are no pictures.
        """
        if name not in (*self.pictures, *self.labels):
            return rows
        if not isinstance(rows, np.ndarray) or rows.ndim not in (3, 4):
            raise ValueError(
                f"config.data.crops: {name!r} has no rows of pictures, [n, H, W] or [n, H, W, C]"
            )
        y, x = (
            _positions(rows.shape[axis], boxes[:, axis - 1], boxes[:, axis + 1]) for axis in (1, 2)
        )
        x = np.where(boxes[:, 4:] > 0, x[:, ::-1], x)
        return _nearest(rows, y, x) if name in self.labels else _bilinear(rows, y, x)


def _positions(size: int, first: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Where the centres of the pixels of a crop lie: float64[n, size], in pixels of the whole, the first one's centre 0."""
    return (first[:, None] + share[:, None] * (np.arange(size) + 0.5) / size) * size - 0.5


def _at(rows: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    return rows[np.arange(len(rows))[:, None, None], y[:, :, None], x[:, None, :]]


def _nearest(rows: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    near = [
        np.clip(np.floor(at + 0.5), 0, size - 1).astype(np.int64)
        for at, size in zip((y, x), rows.shape[1:3], strict=True)
    ]
    return _at(rows, *near)


def _bilinear(rows: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A crop is never larger than the whole, so nothing has to be averaged over more than four pixels."""
    ends = []
    for at, size in zip((y, x), rows.shape[1:3], strict=True):
        low = np.floor(at)
        part = (at - low).astype(np.float32)
        both = [np.clip(low + k, 0, size - 1).astype(np.int64) for k in (0, 1)]
        ends.append((*both, part))
    (top, bottom, v), (left, right, h) = ends
    extra = (1,) * (rows.ndim - 3)
    v, h = v.reshape(*v.shape, 1, *extra), h.reshape(len(h), 1, h.shape[1], *extra)
    above = _at(rows, top, left) * (1 - h) + _at(rows, top, right) * h
    below = _at(rows, bottom, left) * (1 - h) + _at(rows, bottom, right) * h
    made = above * (1 - v) + below * v
    return (np.round(made) if np.issubdtype(rows.dtype, np.integer) else made).astype(rows.dtype)
