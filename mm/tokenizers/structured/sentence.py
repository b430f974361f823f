"""What the sentences share: numbers as bins of four families of tokens, boxes, and a reader that says where it fails."""

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import NoReturn

from mm.errors import UserError
from mm.tokenizers.wordpiece import BINS, COCO, coordinate

TOKEN = re.compile(rf"(?:{'|'.join(n for n in COCO if ' ' in n)})(?!\S)|\S+")
WORD = re.compile(r"\S+")
BIN = re.compile(r"v([0-3])=(0|[1-9]\d{0,2})")
HALF = 512
CODES = 2 * HALF


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """Numbers as bins: round(times * x + plus), 0 .. `last`, halves to the even one.

    Attributes:
      what: the numbers are, for messages.
      cut: what is beyond the ends is taken for the ends, not refused.
      whole: how a number becomes a whole one.
      digits: decimals of what a bin stands for, 0 = whole numbers; None = as computed.
    """

    what: str
    times: float
    plus: float
    cut: bool = True
    whole: Callable[[float], int] = round
    last: int = BINS - 1
    digits: int | None = None

    def bin(self, x: float) -> int:
        """Raises UserError: no number, or beyond the ends."""
        low, high = self.value(0), self.value(self.last)
        if not (low <= x <= high or (self.cut and x == x)):
            raise UserError(
                f"{self.what} {x} cannot be written: not in {low:g} .. {high:g}; give it in these units"
            )
        return self.whole(self.times * min(max(x, low), high) + self.plus)

    def value(self, i: int) -> float:
        """What a bin stands for."""
        x = (i - self.plus) / self.times
        return x if self.digits is None else round(x, self.digits or None)


UNIT = Scale("share of the picture", BINS - 1, 0, cut=False)
"""Shares of a picture's width or height."""
PIXEL = Scale("pixel", 1, 0, cut=False, whole=math.floor)
"""Places in a picture of at most 1000 pixels a side; of a place between two pixels, the lower one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Box:
    """Corners as shares of a picture's width and height (or pixels), 0 <= x0 <= x1 <= 1 and so with y."""

    x0: float
    y0: float
    x1: float
    y1: float

    def write(self, scale: Scale = UNIT, down: Scale | None = None) -> str:
        """Its corners as bins of a scale, or across of that and down of another one. Raises UserError: no such box."""
        if self.x0 > self.x1 or self.y0 > self.y1:
            raise UserError(
                f"{self} cannot be written: its corners are swapped; give x0, y0, x1, y1"
            )
        scales = (scale, down or scale) * 2
        return " ".join(
            coordinate(f, s.bin(c))
            for f, (s, c) in enumerate(zip(scales, dataclasses.astuple(self), strict=True))
        )


@functools.cache
def number_of(token: str) -> int:
    """The bin that a coordinate says; -1 for any other token."""
    found = BIN.fullmatch(token)
    return int(found[2]) if found else -1


def code(i: int) -> str:
    """An id 0 .. 1023 of a codebook: v0 is the lower half, v1 the upper.

    Raises:
      UserError: another id.
    """
    if not 0 <= i < CODES:
        raise UserError(f"code {i} cannot be written: not in 0 .. {CODES - 1}; use 4M's tokenizer")
    return coordinate(i // HALF, i % HALF)


class Reader:
    """Takes the tokens of a sentence one after the other.

    As in 4M's vocabulary, the name of a COCO class is one token, whatever its words, unless `pattern` says what a token is.
    """

    def __init__(self, modality: str, sentence: str, pattern: re.Pattern[str] = TOKEN):
        self.modality, self.tokens, self.at = modality, pattern.findall(sentence), 0

    @property
    def next(self) -> str:
        """The token that is to be taken, "" at the end."""
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def refuse(self, expected: str) -> NoReturn:
        """Raises UserError: the next token is not what was expected."""
        found = repr(self.next) if self.next else "the end"
        raise UserError(
            f"{self.modality} sentence, token {self.at + 1} of {len(self.tokens)}: found {found}, expected {expected}; "
            "mend the sentence, or generate it again"
        )

    def word(self, words: tuple[str, ...], what: str = "") -> str:
        """Takes one of these words.

        Args:
          what: they are, where there are many.
        """
        if self.next not in words:
            self.refuse(what or " or ".join(repr(w) for w in words))
        self.at += 1
        return self.tokens[self.at - 1]

    def takes(self, word: str) -> bool:
        """Takes this word, if it is the next one."""
        if self.next != word:
            return False
        self.at += 1
        return True

    def bin(self, family: int, low: int = 0, high: int = BINS - 1) -> int:
        """Takes a bin of a family."""
        found = BIN.fullmatch(self.next)
        if not found or int(found[1]) != family or not low <= int(found[2]) <= high:
            self.refuse(f"v{family}={low} .. v{family}={high}")
        self.at += 1
        return int(found[2])

    def code(self) -> int:
        """Takes an id of a codebook: see `code`."""
        upper = self.next.startswith("v1=")
        if not upper and not self.next.startswith("v0="):
            self.refuse(f"v0=0 .. v0={HALF - 1} or v1=0 .. v1={HALF - 1}")
        return HALF * upper + self.bin(int(upper), high=HALF - 1)

    def box(self, scale: Scale = UNIT, down: Scale | None = None) -> Box:
        """Takes the corners of a box."""
        x0, y0 = self.bin(0), self.bin(1)
        x1, y1, down = self.bin(2, low=x0), self.bin(3, low=y0), down or scale
        return Box(scale.value(x0), down.value(y0), scale.value(x1), down.value(y1))

    def end(self) -> None:
        """Nothing may be left."""
        if self.next:
            self.refuse("the end")
