"""Figures of a picture and its caption: "v1=<type> v0=<bin>" each, in random order.

Names, their order (a type's number is its place in `FIGURES`) and bins are 4M's. What a bin stands for is said here: its middle;
of counts the count, of sizes its lower end, of the three bins of aesthetic scores 4, 5 and 6.

Source: apple/ml-4m, its transform of metadata.
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
    """Equal bins of a range, and a last one for its upper end and what is beyond; below it is the first one."""
    at = lambda i: low + (high - low) * i / (count - 1)
    middles = (at(i + 0.5) for i in range(count - 1))
    return Bins(tuple(map(at, range(1, count))), (*middles, high))


FIGURES: dict[str, Bins] = {
    "original_width": steps(32),
    "original_height": steps(32),
    "caption_n_chars": steps(1),
    "caption_n_words": steps(1),
    "caption_n_sentences": steps(1),
    "n_humans": steps(1),
    "n_sam_instances": steps(1),
    "n_coco_instances": steps(1),
    "coco_instance_diversity": steps(1),
    "colorfulness": parts(0, 150),
    "brightness": parts(0, 255),
    "contrast": parts(0, 127),
    "saturation": parts(0, 255),
    "entropy": parts(0, 10),
    "walkability": parts(0, 1),
    "objectness": parts(0, 1),
    "semantic_diversity": steps(1),
    "geometric_complexity": parts(0, 0.75),
    "occlusion_score": parts(0, 0.25),
    "watermark_score": Bins((0.5,), (0.25, 0.75)),
    "aesthetic_score": Bins((4.5, 5.5), (4.0, 5.0, 6.0)),
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
