"""Points and the masks over them: "point v0=y v1=x", then per mask "polygon", its box and 16 ids, or "none".

Unlike all other places in 4M's sentences, these are pixels of the picture (of 224 a side in its models).
"""

import dataclasses
import functools
from collections.abc import Iterable

from mm.errors import UserError
from mm.tokenizers.structured.automaton import (
    Choice,
    Grammar,
    Many,
    Seq,
    bins,
    codes,
    corners,
    word,
)
from mm.tokenizers.structured.sentence import PIXEL, Box, Reader, code
from mm.tokenizers.wordpiece import BINS, coordinate

CODES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """A mask: its box in pixels, and 16 ids of the tokenizer of masks (64 x 64 within the box), 0 .. 1023."""

    box: Box
    mask: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A place of a picture, in pixels, and the instances that cover it."""

    y: float
    x: float
    instances: tuple[Instance, ...] = ()


def write(points: Iterable[Point]) -> str:
    """Points (4M draws 7 at random) -> sentence, "" for none.

    Raises:
      UserError: a point or box beyond the picture, or other than 16 ids.
    """
    return " ".join(_point(p) for p in points)


def _point(point: Point) -> str:
    covering = " ".join(_instance(i) for i in point.instances) or "none"
    return (
        f"point {coordinate(0, PIXEL.bin(point.y))} {coordinate(1, PIXEL.bin(point.x))} {covering}"
    )


def _instance(instance: Instance) -> str:
    if len(instance.mask) != CODES:
        raise UserError(f"sam_instance: a mask of {len(instance.mask)} ids; it has {CODES}")
    return " ".join(["polygon", instance.box.write(PIXEL), *map(code, instance.mask)])


def parse(sentence: str) -> tuple[Point, ...]:
    """The points of a sentence.

    Raises:
      UserError: malformed, with the number of the token.
    """
    reader, points = Reader("sam_instance", sentence), []
    while reader.next:
        reader.word(("point",))
        y, x = PIXEL.value(reader.bin(0)), PIXEL.value(reader.bin(1))
        points.append(Point(y, x, _covering(reader)))
    return tuple(points)


def _covering(reader: Reader) -> tuple[Instance, ...]:
    if reader.word(("polygon", "none")) == "none":
        return ()
    instances = []
    while True:
        box = reader.box(PIXEL)
        instances.append(Instance(box, tuple(reader.code() for _ in range(CODES))))
        if reader.next in ("", "point"):
            return tuple(instances)
        reader.word(("polygon",), "'polygon', 'point' or the end")


@functools.cache
def grammar() -> Grammar:
    """Of what `parse` takes."""
    mask = Seq((word("polygon"), corners(), *[codes()] * CODES))
    covering = Choice((word("none"), Seq((mask, Many(mask)))))
    return Grammar(Many(Seq((word("point"), bins(0, BINS - 1), bins(1, BINS - 1), covering))))
