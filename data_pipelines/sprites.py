"""Sprites: small pictures of shapes, drawn from attributes, and captions that name them.

After CdSprites+ (Sejnova et al. 2024), with an own renderer: level 1 tells shapes apart, 2 sizes, 3 colours, 4 quadrants,
5 light and dark textured grounds. With two objects side by side captions say which attribute belongs to which.
"""

import dataclasses
from typing import Any

import numpy as np

from mm.data.made import MadeSource
from mm.errors import UserError

SHAPES = ("square", "ellipse", "heart")
SIZES = ("small", "big")
COLOURS = {
    "white": (255, 255, 255), "red": (192, 64, 0), "yellow": (228, 217, 111), "green": (10, 107, 60),
    "blue": (0, 127, 200), "pink": (255, 0, 255),
}  # fmt: skip
ROWS, COLUMNS, GROUNDS = ("top", "bottom"), ("left", "right"), ("dark", "light")
ATTRIBUTES = ("shape", "size", "colour", "row", "column", "ground")
VALUES = {"shape": SHAPES, "size": SIZES, "colour": tuple(COLOURS), "row": ROWS, "column": COLUMNS, "ground": GROUNDS}  # fmt: skip
LEVELS = {"shape": 1, "size": 2, "colour": 3, "row": 4, "column": 4, "ground": 5}
WORDS = ("", *(v for values in VALUES.values() for v in values), "a", "at", "on", "and")
"""Ids of words; 0 = no word."""


@dataclasses.dataclass(kw_only=True)
class Sprites(MadeSource):
    """Columns: image uint8[side, side, 3], caption int32[words] (`WORDS`), swapped (two objects: the caption with the two
    objects' colours exchanged), attributes int32[objects, 6] (`ATTRIBUTES`).

    Attributes:
      level: which attributes vary (the others keep their first value; white on dark) and are named. objects: 1 or 2.
      side: of a picture in pixels.
    """

    level: int = 3
    objects: int = 1
    side: int = 32
    rows: tuple[int, int, int] = (10_000, 1_000, 2_000)
    modalities: tuple[str, ...] = ("image", "caption")

    def validate(self) -> None:
        if self.level not in range(1, 6) or self.objects not in (1, 2):
            raise UserError(f"config.data.source: level={self.level}, objects={self.objects}: 1 to 5, and 1 or 2")  # fmt: skip

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        drawn = [
            rng.integers(0, len(VALUES[a]) if LEVELS[a] <= self.level else 1, (rows, self.objects))
            for a in ATTRIBUTES
        ]
        found = np.stack(drawn, -1).astype(np.int32)
        colour, place = ATTRIBUTES.index("colour"), ATTRIBUTES.index("column")
        if self.objects == 2:  # of different shapes and colours, one left and one right
            for at, values in ((0, SHAPES), (colour, COLOURS)):
                shift = rng.integers(1, len(values), rows)
                found[:, 1, at] = (found[:, 0, at] + shift) % len(values)
            found[:, 1, place] = 1 - found[:, 0, place]
            found[:, 1, -1] = found[:, 0, -1]
        swapped = found.copy()
        swapped[:, :, colour] = found[:, ::-1, colour]
        return {
            "image": drawn_pictures(found, self.side, rng),
            "caption": np.stack([caption(x, self.level) for x in found]),
            "swapped": np.stack([caption(x, self.level) for x in swapped]),
            "attributes": found,
        }


@dataclasses.dataclass(kw_only=True)
class Combinations(Sprites):
    """Sprites of one object whose group is the combination of attributes: what a caption tells apart.

    Attributes:
      scaled: pictures are float32 from -1 to 1, see `pixels`.
    """

    scaled: bool = False

    def made(self, rng: np.random.Generator, rows: int, split: str) -> dict[str, Any]:
        columns = super().made(rng, rows, split)
        sizes = tuple(len(VALUES[a]) for a in ATTRIBUTES)
        group = np.ravel_multi_index(tuple(columns["attributes"][:, 0].T), sizes)
        image = pixels(columns["image"]) if self.scaled else columns["image"]
        return columns | {"image": image, "group": group}


def pixels(pictures: np.ndarray) -> np.ndarray:
    """uint8 -> float32 from -1 to 1."""
    return (pictures / 128 - 1).astype(np.float32)


def caption(objects: np.ndarray, level: int) -> np.ndarray:
    """int32[objects, 6] -> word ids: "small red heart at top left on dark", "a red heart and a blue square"."""
    words: list[str] = []
    for i, values in enumerate(objects):
        said = {a: VALUES[a][v] for a, v in zip(ATTRIBUTES, values, strict=True)}
        words += ["and"] if i else []
        words += ["a", *(said[a] for a in ("size", "colour", "shape") if LEVELS[a] <= level)]
        if level >= 4 and len(objects) == 1:
            words += ["at", said["row"], said["column"]]
    if level >= 5:
        words += ["on", VALUES["ground"][objects[0][-1]]]
    return np.array([WORDS.index(w) for w in words], np.int32)


def drawn_pictures(objects: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """int32[n, objects, 6] -> uint8[n, side, side, 3]; places and grounds vary a little."""
    n = len(objects)
    ground = np.where(objects[:, 0, -1] == 1, 170, 25)[:, None, None, None]
    texture = rng.normal(0, 12, (n, side // 4, side // 4, 1)).repeat(4, 1).repeat(4, 2)
    picture = ground + np.where(objects[:, 0, -1] == 1, 1.0, 0.5)[:, None, None, None] * texture
    picture = np.broadcast_to(picture, (n, side, side, 3)).copy()
    axis = (np.arange(side) + 0.5) / side * 4 - 2
    for k in range(objects.shape[1]):
        shape, size, colour, row, column, _ = objects[:, k].T
        middle = np.stack([2 * row - 1, 2 * column - 1], 1) + rng.uniform(-0.15, 0.15, (n, 2))
        scale = np.where(size == 1, 0.8, 0.5)[:, None, None]
        y = (axis[None, :, None] - middle[:, 0, None, None]) / scale
        x = (axis[None, None, :] - middle[:, 1, None, None]) / scale
        heart = (x**2 + y**2 - 0.6) ** 3 + 1.2 * x**2 * y**3 <= 0
        inside = np.select(
            [s == shape[:, None, None] for s in range(3)],
            [np.maximum(abs(x), abs(y)) < 0.75, x**2 + (y / 0.55) ** 2 < 0.95, heart],
        )
        paint = np.array(list(COLOURS.values()))[colour][:, None, None]
        picture = np.where(inside[..., None].astype(bool), paint, picture)
    return np.clip(picture, 0, 255).astype(np.uint8)
