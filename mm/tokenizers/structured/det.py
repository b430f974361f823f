"""Boxes with labels: per object "v0=xmin v1=ymin v2=xmax v3=ymax class", nearest to the top left corner first."""

import dataclasses
import functools
from collections.abc import Iterable

from mm.errors import UserError, nearest
from mm.tokenizers.structured.automaton import Grammar, Many, Seq, Tokens, corners
from mm.tokenizers.structured.sentence import Box, Reader
from mm.tokenizers.wordpiece import COCO

SCORE = 0.6


@dataclasses.dataclass(frozen=True, slots=True)
class Detected:
    """An object: one of the COCO classes in a box."""

    label: str
    box: Box


def select(
    found: Iterable[Detected], scores: Iterable[float], least: float = SCORE
) -> tuple[Detected, ...]:
    """What 4M writes of a detector's output: scores of at least 0.6, in the order of x0^2 + y0^2 (after the crop)."""
    kept = [d for d, score in zip(found, scores, strict=True) if score >= least]
    return tuple(sorted(kept, key=lambda d: d.box.x0**2 + d.box.y0**2))


def write(objects: Iterable[Detected]) -> str:
    """Objects, as `select` orders them -> sentence; "" for none.

    Raises:
      UserError: a box beyond the picture, or no COCO class.
    """
    objects = tuple(objects)
    for d in objects:
        if d.label not in COCO:
            raise UserError(f"det: {d.label!r} is no COCO class{nearest(d.label, COCO)}")
    return " ".join(f"{d.box.write()} {d.label}" for d in objects)


def parse(sentence: str) -> tuple[Detected, ...]:
    """The objects of a sentence, in its order.

    Raises:
      UserError: malformed, with the number of the token.
    """
    reader, objects = Reader("det", sentence), []
    while reader.next:
        box = reader.box()
        objects.append(Detected(reader.word(COCO, "a COCO class"), box))
    return tuple(objects)


@functools.cache
def grammar() -> Grammar:
    """Of what `parse` takes; the name of a class is one token."""
    return Grammar(Many(Seq((corners(), Tokens(COCO)))))
