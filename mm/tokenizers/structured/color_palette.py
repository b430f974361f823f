"""The main colours of a picture: "v1=n", then n times red, green and blue, "v0=0" .. "v0=255"."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mm.errors import UserError
from mm.tokenizers.structured.automaton import Choice, Grammar, Seq, bins, word
from mm.tokenizers.structured.sentence import Reader
from mm.tokenizers.wordpiece import coordinate

Colour = tuple[int, int, int]
MOST = 7


def draw(palettes: Mapping[int, Sequence[Colour]], rng: np.random.Generator) -> Sequence[Colour]:
    """One of a picture's palettes (number of colours -> colours), as 4M chooses at random which it writes."""
    return palettes[int(rng.choice(sorted(palettes)))]


def write(colours: Sequence[Colour]) -> str:
    """1 to 7 colours, each red, green, blue in 0 .. 255 -> sentence.

    Raises:
      UserError: another number of colours, or no such colour.
    """
    values = [v for colour in colours for v in colour]
    if not 1 <= len(colours) <= MOST or any(len(colour) != 3 for colour in colours):
        raise UserError(f"color_palette: {colours}: give 1 to {MOST} colours of 3 values")
    if any(v not in range(256) for v in values):
        raise UserError(f"color_palette: {colours}: values are whole numbers 0 .. 255; scale them")
    return " ".join([coordinate(1, len(colours)), *(coordinate(0, int(v)) for v in values)])


def parse(sentence: str) -> tuple[Colour, ...]:
    """The colours of a sentence.

    Raises:
      UserError: malformed, with the number of the token.
    """
    reader = Reader("color_palette", sentence)
    count = reader.bin(1, 1, MOST)
    value = lambda: reader.bin(0, 0, 255)
    colours = tuple((value(), value(), value()) for _ in range(count))
    reader.end()
    return colours


@functools.cache
def grammar() -> Grammar:
    """Of what `parse` takes."""
    counted = lambda n: Seq((word(coordinate(1, n)), *[bins(0, 255)] * (3 * n)))
    return Grammar(Choice(tuple(counted(n) for n in range(1, MOST + 1))))
