"""What the forms of sentences share that have label sets and ranges of their own: `write`, `read`, a grammar, rows.

A form is a frozen dataclass of its settings. Its values are plain data as JSON has it (lists, dicts, numbers, names), and
a token of its sentences is a word between blanks. `read` goes by the grammar, so both take the same sentences.
"""

import dataclasses
import functools
import json
import math
import numbers
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, ClassVar

from mm.errors import UserError, nearest
from mm.tokenizers.structured.automaton import Grammar, Rule, bins
from mm.tokenizers.structured.sentence import WORD, Reader, Scale, number_of
from mm.tokenizers.wordpiece import BINS, coordinate


class Form:
    """Base of the forms; each says its `kind`, `rule`, `tokens` (value -> sentence) and `value` (reader -> value).

    read(write(x)) == x for every x of which each number is one that its bin stands for (others become these), and
    write(read(s)) == s for every sentence of the grammar.
    """

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        """Raises UserError for settings that make no sense, or with which a sentence would mean two things."""
        self.validate()
        _ = self.grammar

    def validate(self) -> None:
        """Raises UserError for settings that make no sense."""

    @property
    def rule(self) -> Rule:
        """What its sentences are like."""
        raise NotImplementedError

    def tokens(self, value: Any) -> list[str]:
        """A value -> the tokens of its sentence. Raises UserError: see `write`."""
        raise NotImplementedError

    def value(self, reader: Reader) -> Any:
        """The value of a sentence that the grammar has accepted."""
        raise NotImplementedError

    @functools.cached_property
    def grammar(self) -> Grammar:
        """Which token may come when."""
        return Grammar(self.rule)

    def write(self, value: Any) -> str:
        """A value -> its sentence.

        Raises:
          UserError: another shape than the form has, an unknown name, a number that is none or beyond its range.
        """
        return " ".join(self.tokens(value))

    def read(self, sentence: str) -> Any:
        """The value of a sentence.

        Raises:
          UserError: malformed: the number of the token where it goes wrong, what is there, and what may be.
        """
        reader = Reader(self.kind, sentence, WORD)
        reader.at, state = self.grammar.run(reader.tokens)
        if reader.next or state.place not in self.grammar.ends:
            reader.refuse(self.grammar.expected(state))
        reader.at = 0
        return self.value(reader)

    def from_row(self, row: Any) -> Any:
        """A raw row, JSON text unless it is a value already -> value. Raises UserError: no JSON."""
        if not isinstance(row, str):
            return row.tolist() if hasattr(row, "tolist") else row
        try:
            return json.loads(row)
        except ValueError as e:
            raise UserError(f"{self.kind}: {_short(row)} is no JSON ({e}); mend the row") from e

    def to_row(self, value: Any) -> str:
        """A value -> its JSON, as `json.dumps` spaces it."""
        return json.dumps(value)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """A number with a stated range, as one of at most 1000 bins.

    Attributes:
      step: between neighbours; 0 = 1000 bins. What a bin stands for has the decimals of step and low; with whole ones it
        is a whole number.
      cut: what is beyond the range is taken for its end, not refused. What is no number (NaN) always is.
    """

    low: float = 0.0
    high: float = 1.0
    step: float = 0.0
    cut: bool = False

    def __post_init__(self) -> None:
        ends = (self.low, self.high, self.step)
        if not all(map(math.isfinite, ends)) or self.low >= self.high or self.step < 0:
            raise UserError(f"{self}: give finite ends, low < high, and a step of at least 0")
        steps = (self.high - self.low) / (self.step or (self.high - self.low) / (BINS - 1))
        if round(steps) not in range(1, BINS) or abs(steps - round(steps)) > 1e-6:
            raise UserError(
                f"{self}: {steps:g} steps; give a step that divides the range into at most {BINS - 1}"
            )

    @property
    def last(self) -> int:
        """Number of the last bin."""
        return round((self.high - self.low) / self.step) if self.step else BINS - 1

    def scale(self, what: str) -> Scale:
        """Its bins, of numbers that are called so in messages."""
        return _scale(self, what)

    def bin(self, x: Any, what: str) -> int:
        """The bin of a number. Raises UserError: no number, or beyond the range."""
        return self.scale(what).bin(_real(x, what))

    def rule(self, family: int) -> Rule:
        """One token of a family of coordinates."""
        return bins(family, self.last)


UNIT = Number()
"""Shares, 0 .. 1."""


@functools.cache
def _scale(number: Number, what: str) -> Scale:
    low, step = number.low, number.step or (number.high - number.low) / (BINS - 1)
    digits = max(_digits(low), _digits(step)) if number.step else None
    times = 1 / step
    if math.isclose(times, round(times), rel_tol=1e-9):
        times = round(times)  # then i / times is the nearest float to the decimal number
    plus = -low * times
    plus = round(plus) if math.isclose(plus, round(plus), abs_tol=1e-9) else plus
    return Scale(what, times, plus, cut=number.cut, last=number.last, digits=digits)


def _digits(x: float) -> int:
    """Decimals of a number as it is written."""
    exponent = Decimal(repr(x)).normalize().as_tuple().exponent
    return max(0, -int(exponent))


def _real(x: Any, what: str) -> float:
    if isinstance(x, bool) or not isinstance(x, numbers.Real):
        raise UserError(f"{what} {x!r} cannot be written: it is no number")
    return x  # pyright: ignore[reportReturnType] (whole ones stay whole)


def number_tokens(number: Number, family: int, x: Any, what: str) -> list[str]:
    """A number as its token."""
    return [coordinate(family, number.bin(x, what))]


def take_number(number: Number, reader: Reader, family: int) -> float:
    """The number that the next token says."""
    return number.scale("").value(reader.bin(family))


def check_names(kind: str, what: str, found: Iterable[str], *, single: bool = False) -> None:
    """Raises UserError for a set of names that is empty, or has one that is twice there or cannot be written."""
    seen: set[str] = set()
    for name in found:
        spelt = name.split() if isinstance(name, str) else []
        bad = not spelt or name != " ".join(spelt) or any(number_of(w) >= 0 for w in spelt)
        if bad or name in seen or (single and len(spelt) > 1):
            raise UserError(
                f"{kind}.{what}: {name!r}: give each once, {'one word' if single else 'words between single blanks'}, none a coordinate"
            )
        seen.add(name)
    if not seen:
        raise UserError(f"{kind}.{what}: none are given; name them")


def name_tokens(kind: str, what: str, name: Any, known: tuple[str, ...]) -> list[str]:
    """The words of a name. Raises UserError: it is not known."""
    if name not in known:
        raise UserError(f"{kind}: {name!r} is no {what}{nearest(str(name), known)}")
    return name.split()


def take_name(reader: Reader, known: tuple[str, ...]) -> str:
    """Takes the words of the longest name that comes next."""
    heads, taken = _heads(known), ()
    while reader.next and (*taken, reader.next) in heads:
        taken = (*taken, reader.next)
        reader.at += 1
    return " ".join(taken)


@functools.cache
def _heads(known: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    """All beginnings of names."""
    split = [tuple(name.split()) for name in known]
    return frozenset(words[:n] for words in split for n in range(1, len(words) + 1))


def items(kind: str, value: Any, most: int = 0) -> list[Any]:
    """The list that a value must be. Raises UserError: it is none, or longer than `most`."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise UserError(f"{kind}: {_short(value)} is no list; give one")
    found = list(value)
    if most and len(found) > most:
        raise UserError(f"{kind}: {len(found)} of them, at most {most} are written; choose")
    return found


def fields(kind: str, item: Any, needed: tuple[str, ...], more: tuple[str, ...] = ()) -> Any:
    """A mapping with these keys. Raises UserError: it is none, lacks one, or has another one."""
    if not isinstance(item, Mapping):
        raise UserError(f"{kind}: {_short(item)} is no dict; give {', '.join(needed)}")
    for key in needed:
        if key not in item:
            raise UserError(f"{kind}: {_short(item)} has no {key!r}; add it")
    for key in item:
        if key not in needed + more:
            raise UserError(f"{kind}: {key!r} is no part of one{nearest(str(key), needed + more)}")
    return item


def counted(kind: str, what: str, value: Any, count: int) -> list[Any]:
    """A list of exactly so many. Raises UserError: it is none."""
    found = items(kind, value)
    if len(found) != count:
        raise UserError(f"{kind}: {what} {_short(value)} has {len(found)} entries; give {count}")
    return found


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
