"""Figures of a picture and its caption: "v1=<type> v0=<bin>" each, in random order.

Names, their order (a type's number is its place in `FIGURES`) and bins are 4M's. What a bin stands for is said here: its middle;
of counts the count, of sizes its lower end, of the three bins of aesthetic scores 4, 5 and 6.

Source: apple/ml-4m, its transform of metadata.
"""

import bisect
import dataclasses
import functools
from collections.abc import Mapping

import numpy as np

from mm.errors import UserError, nearest
from mm.tokenizers.structured.automaton import Grammar, Seq, bins, maybe, word
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


@dataclasses.dataclass(frozen=True, slots=True)
class Parts:
    """49 equal bins of 0 .. high, and a last one for its upper end and what is beyond; below it is the first one."""

    high: float

    def bin(self, x: float) -> int:
        """In 4M's order of operations: what lies on an edge falls as it does there."""
        return int(max(0, min(x, self.high)) / self.high * 49)

    @property
    def values(self) -> tuple[float, ...]:
        return (*(self.high * (i + 0.5) / 49 for i in range(49)), self.high)


FIGURES: dict[str, Bins | Parts] = {
    "original_width": steps(32),
    "original_height": steps(32),
    "caption_n_chars": steps(1),
    "caption_n_words": steps(1),
    "caption_n_sentences": steps(1),
    "n_humans": steps(1),
    "n_sam_instances": steps(1),
    "n_coco_instances": steps(1),
    "coco_instance_diversity": steps(1),
    "colorfulness": Parts(150),
    "brightness": Parts(255),
    "contrast": Parts(127),
    "saturation": Parts(255),
    "entropy": Parts(10),
    "walkability": Parts(1),
    "objectness": Parts(1),
    "semantic_diversity": steps(1),
    "geometric_complexity": Parts(0.75),
    "occlusion_score": Parts(0.25),
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


@functools.cache
def grammar() -> Grammar:
    """Of those that `parse` takes with the types in their order: in any order it would need a state for each set of types."""
    figure = lambda i, f: Seq((word(coordinate(1, i)), bins(0, len(f.values) - 1)))
    return Grammar(Seq(tuple(maybe(figure(i, f)) for i, f in enumerate(FIGURES.values()))))
