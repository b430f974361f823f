"""Omniglot: characters of five alphabets, each drawn online by 20 people, as pen paths and as images.

2,720 drawings of 136 characters; what was published is in omniglot.npz, under the MIT licence (NOTICE).
"""

import dataclasses

import numpy as np
from PIL import Image

from mm.data.npz import NpzSource

SPLITS = np.array(["train"] * 14 + ["validation"] * 2 + ["test"] * 4)  # by who drew
POINTS, SIDE, FILLED, PAD = 64, 28, 0.8, 60  # FILLED of a square is its drawing's larger side


def resampled(points: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """A path as float64[POINTS, 3], by equal steps of ink: x, y, and 1 where a stroke starts, else 0.

    A jump counts as one step, so that every stroke has at least one point: dots are kept.

    Args:
        points: [n, 2], any unit.
        starts: bool[n], true for the first point of each stroke.
    """
    ink = np.hypot(*np.diff(points, axis=0, prepend=points[:1]).T) * ~starts
    ink += starts * (ink.sum() or 1) / (POINTS - starts.sum())
    at = (np.arange(POINTS) + 0.5) * ink.sum() / POINTS
    k = ink.cumsum().searchsorted(at)  # the first point after it
    back = (ink.cumsum()[k] - at) / ink[k] * ~starts[k]
    xy = points[k] - back[:, None] * (points[k] - points[k - 1])
    return np.column_stack([xy, np.diff(starts.cumsum()[k], prepend=0) > 0])


def framed(
    points: np.ndarray, starts: np.ndarray, ink: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Image (uint8[SIDE, SIDE], ink is 255) and path of a drawing, in the same square around it."""
    low, high = points.min(0), points.max(0)
    middle, half = (low + high) / 2, max(high - low) / 2 / FILLED
    box = (*(middle - half + PAD), *(middle + half + PAD))
    image = Image.fromarray(np.pad(ink, PAD) * 255).resize((SIDE, SIDE), Image.Resampling.BOX, box)
    return np.asarray(image), resampled((points - middle) / half, starts).astype(np.float32)


@dataclasses.dataclass(kw_only=True)
class Omniglot(NpzSource):
    """`pen` float32[n, 64, 3] in [-1, 1], `image` uint8[n, 28, 28]. A group is a character."""

    licence = "MIT"
    path: str = "data_pipelines/assets/omniglot.npz"
    sha256: str = "271710e245a557b991eeb2e2b9c87a1ea15ced0ebcf7da3f761e82af7f4f14f2"
    modalities: tuple[str, ...] = ("image", "pen")

    def examples(self, found):
        points, starts = found["points"] / 10, found["pen_down"] == 1
        paths = (np.split(a, found["offsets"][1:-1]) for a in (points, starts))
        ink = np.unpackbits(found["image_bits"], axis=1, count=105 * 105).reshape(-1, 105, 105)
        image, pen = map(np.stack, zip(*map(framed, *paths, ink), strict=True))
        return {"image": image, "pen": pen}, found["character"], SPLITS[found["drawer"] - 1]
