"""Emoji: each as a colour drawing, a line drawing and a name.

    python -m data_pipelines.emoji --npz emojione.npz --jsonl emojione.jsonl --out data_pipelines/assets/emoji.npz

makes the asset of the 1,391 emoji of EmojiOne 2.2.7 that have a line drawing, at half the size (NOTICE). Every emoji is an
instance of its own: what is retrieved is the one, not its kind. Splits are 80/10/10 by a hash.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from mm.data.aligned import SPLITS
from mm.data.npz import NpzSource
from mm.errors import UserError, nearest

CATEGORIES = ("activity", "flags", "food", "nature", "objects", "people", "regional", "symbols", "travel")  # fmt: skip
SIDE, LENGTH = 32, 48


@dataclasses.dataclass(kw_only=True)
class Emoji(NpzSource):
    """`colour` uint8[n, 32, 32, 3] on white, `line` uint8[n, 32, 32] (255 = ink), `name` int32[n, 48]: English, in lower
    case, UTF-8 bytes, 0 = none, longer ones cut; `category` int32[n], see `CATEGORIES`.

    Attributes:
      held_out: categories of which all emoji are in test; train and validation have none.
    """

    licence = "CC BY 4.0 (EmojiOne)"
    path: str = "data_pipelines/assets/emoji.npz"
    sha256: str = "27d30217fc27f44e92dad1c73863f481bdf3e67f1775dd2400984a1830811e08"
    modalities: tuple[str, ...] = ("colour", "line", "name")
    held_out: tuple[str, ...] = ()

    def validate(self) -> None:
        """Raises UserError naming a category that there is not."""
        for name in self.held_out:
            if name not in CATEGORIES:
                hint = nearest(name, CATEGORIES)
                raise UserError(f"config.data.source.held_out: no category {name!r}{hint}")

    def examples(self, found):
        category = found["category"].astype(np.int32)
        held = np.isin(category, [CATEGORIES.index(name) for name in self.held_out])
        names = bytes(found["name"]).decode().split("\n")
        columns = {
            "colour": found["colour"],
            "line": found["line"] * np.uint8(17),
            "name": np.stack([encoded(name) for name in names]),
            "category": category,
        }
        split = np.where(held, SPLITS.index("test"), found["split"])
        return columns, np.arange(len(names)), np.array(SPLITS)[split]


def encoded(text: str) -> np.ndarray:
    """A name as int32[LENGTH]."""
    data = text.encode()[:LENGTH]
    return np.frombuffer(data.ljust(LENGTH, b"\0"), np.uint8).astype(np.int32)


def halved(pictures: np.ndarray) -> np.ndarray:
    """float[n, 2h, 2w, ...] -> means of 2 x 2 pixels."""
    n, height, width, *rest = pictures.shape
    return pictures.reshape(n, height // 2, 2, width // 2, 2, *rest).mean((2, 4))


def write(npz: Path, jsonl: Path, out: Path) -> None:
    """The asset: colours in steps of 4, ink in 16 shades, names one to a line."""
    with np.load(npz) as file:
        drawn = np.flatnonzero(file["has_line"])
        colour, line, split = (file[name][drawn] for name in ("color", "line", "split"))
    known = [json.loads(row) for row in jsonl.read_text().splitlines()]
    opaque = colour[..., 3:] / 255
    on_white = colour[..., :3] * opaque + 255 * (1 - opaque)
    np.savez_compressed(
        out,
        colour=(halved(on_white).round() // 4 * 4 + 2).astype(np.uint8),
        line=(halved(line) / 17).round().astype(np.uint8),
        name=np.frombuffer("\n".join(known[i]["name"] for i in drawn).encode(), np.uint8),
        category=np.array([CATEGORIES.index(known[i]["category"]) for i in drawn], np.uint8),
        split=split,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for flag in ("--npz", "--jsonl", "--out"):
        parser.add_argument(flag, type=Path, required=True)
    given = parser.parse_args()
    write(given.npz, given.jsonl, given.out)
