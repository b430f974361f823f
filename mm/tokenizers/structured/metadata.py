"""Figures of a picture and its caption: "v1=<type> v0=<bin>" each, in random order.

4M's sources, as far as they are known here, give 21 types with these bins, but neither the numbers of the types nor which
value a bin stands for. Both are said here: a type's number is its place in `FIGURES`, and a bin stands for its middle
(of counts: the count, of sizes: its lower end, of the three bins of aesthetic scores 4, 5 and 6). Before a released model's
metadata is trusted, compare the numbers.
"""

import bisect
import dataclasses
from collections.abc import Mapping

import numpy as np

from mm.errors import UserError, nearest
from mm.tokenizers.structured.sentence import Reader
from mm.tokenizers.wordpiece import BINS, coordinate


@dataclasses.dataclass(frozen=True, slots=True)
class Bins:
    """Bin i holds edges[i - 1] <= x < edges[i], and stands for values[i]; the first and the last one have no outer end."""

    edges: tuple[float, ...]
    values: tuple[float, ...]

    def bin(self, x: float) -> int:
        return bisect.bisect_right(self.edges, x)


def steps(width: int) -> Bins:
    """1000 bins of whole numbers; the last one holds all that are larger."""
    return Bins(tuple(range(width, BINS * width, width)), tuple(range(0, BINS * width, width)))


def parts(low: float, high: float, count: int = 50) -> Bins:
    """Equal bins of a range; what is beyond belongs to the first and the last one."""
    at = lambda i: low + (high - low) * i / count
    return Bins(tuple(map(at, range(1, count))), tuple(at(i + 0.5) for i in range(count)))


FIGURES: dict[str, Bins] = {
    "original_width": steps(32),
    "original_height": steps(32),
    "caption_characters": steps(1),
    "caption_words": steps(1),
    "caption_sentences": steps(1),
    "humans": steps(1),
    "sam_instances": steps(1),
    "coco_instances": steps(1),
    "coco_classes": steps(1),
    "colorfulness": parts(0, 150),
    "brightness": parts(0, 255),
    "contrast": parts(0, 127),
    "saturation": parts(0, 255),
    "entropy": parts(0, 10),
    "walkability": parts(0, 1),
    "objectness": parts(0, 1),
    "semantic_classes": steps(1),
    "geometric_complexity": parts(0, 0.75),
    "occlusion": parts(0, 0.25),
    "watermark": Bins((0.5,), (0.25, 0.75)),
    "aesthetic": Bins((4.5, 5.5), (4.0, 5.0, 6.0)),
}
NAMES = tuple(FIGURES)


def chunks(figures: Mapping[str, float], rng: np.random.Generator) -> list[str]:
    """Any of the 21 figures -> one phrase each, shuffled: the units that 4M masks and cuts.

    Raises:
      UserError: no such figure, or no number.
    """
    for name, x in figures.items():
        if name not in FIGURES:
            raise UserError(f"metadata: {name!r} is no figure{nearest(name, NAMES)}")
        if x != x:
            raise UserError(f"metadata: {name} is not a number; leave it out")
    spelt = [
        f"{coordinate(1, NAMES.index(name))} {coordinate(0, FIGURES[name].bin(x))}"
        for name, x in figures.items()
    ]
    return [spelt[i] for i in rng.permutation(len(spelt))]


def write(figures: Mapping[str, float], rng: np.random.Generator) -> str:
    """Any of the 21 figures -> sentence. Raises UserError: see `chunks`."""
    return " ".join(chunks(figures, rng))


def parse(sentence: str) -> dict[str, float]:
    """The figures of a sentence, each the value that its bin stands for.

    Raises:
      UserError: malformed, or a figure twice, with the number of the token.
    """
    reader, figures = Reader("metadata", sentence), {}
    while reader.next:
        left = {coordinate(1, i): n for i, n in enumerate(NAMES) if n not in figures}
        name = left[reader.word(tuple(left), "a type of v1=0 .. v1=20 that was not given before")]
        values = FIGURES[name].values
        figures[name] = values[reader.bin(0, high=len(values) - 1)]
    return figures
