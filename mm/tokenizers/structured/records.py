"""What is said of a picture as a whole: its colours, named fields, and a tree of its parts.

Palette   v0=150 v1=150 v2=146 v3=400 v0=173 v1=35 v2=35 v3=90
Metadata  objects v0=3 ground sand sky_share v0=120
Tree      ( scene ( sky day ) ( ground sand ( cube red ( at v0=12 v0=40 ) ) ) )
"""

import dataclasses
import json
import re
from typing import Any, ClassVar

from mm.errors import UserError
from mm.tokenizers.structured.automaton import (
    Choice,
    Many,
    Rule,
    Seq,
    Tokens,
    bins,
    maybe,
    names,
    word,
)
from mm.tokenizers.structured.form import (
    Form,
    Number,
    check_names,
    counted,
    fields,
    items,
    name_tokens,
    number_tokens,
    take_name,
    take_number,
)
from mm.tokenizers.structured.sentence import Reader
from mm.tokenizers.wordpiece import coordinate

CHANNEL = Number(low=0, high=255, step=1)
HEX = re.compile(r"#[0-9a-f]{6}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Palette(Form):
    """[[red, green, blue], ...], 0 .. 255; with weights [{"colour": [...], "weight": 0.4}, ...].

    Attributes:
      hex: colours are "#9696ff", in small letters. weights: their range; None = there are none.
      most: colours at most; 0 = any number.
    """

    kind: ClassVar[str] = "palette"
    hex: bool = False
    weights: Number | None = None
    most: int = 7

    @property
    def rule(self) -> Rule:
        weight = (self.weights.rule(3),) if self.weights else ()
        return Many(Seq((*(bins(i, 255) for i in range(3)), *weight)), self.most)

    def tokens(self, value: Any) -> list[str]:
        found = []
        for item in items(self.kind, value, self.most):
            colour = item
            if self.weights:
                colour = fields(self.kind, item, ("colour", "weight"))["colour"]
            for i, x in enumerate(self._channels(colour)):
                found += number_tokens(CHANNEL, i, x, f"{self.kind}: channel")
            if self.weights:
                found += number_tokens(self.weights, 3, item["weight"], f"{self.kind}: weight")
        return found

    def _channels(self, colour: Any) -> list[Any]:
        if not self.hex:
            return counted(self.kind, "colour", colour, 3)
        if not isinstance(colour, str) or not HEX.fullmatch(colour):
            raise UserError(f"{self.kind}: {colour!r} is no colour; write it as '#1a2b3c'")
        return list(bytes.fromhex(colour[1:]))

    def value(self, reader: Reader) -> list[Any]:
        found = []
        while reader.next:
            colour: Any = [reader.bin(i) for i in range(3)]
            if self.hex:
                colour = f"#{bytes(colour).hex()}"
            if self.weights:
                colour = {"colour": colour, "weight": take_number(self.weights, reader, 3)}
            found.append(colour)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """A named fact, a number or one of some names. `name` is one word."""

    name: str
    number: Number | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_names("field", "name", (self.name,), single=True)
        if (self.number is None) == (not self.names):
            raise UserError(f"field {self.name!r}: give it a number's range, or names: one of both")
        if self.names:
            check_names(f"field {self.name!r}", "names", self.names)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metadata(Form):
    """{"objects": 3, "ground": "sand"}: any of the fields, written and given back in the order of the settings."""

    kind: ClassVar[str] = "metadata"
    fields: tuple[Field, ...]

    def validate(self) -> None:
        check_names(self.kind, "fields", [f.name for f in self.fields])

    @property
    def rule(self) -> Rule:
        said = lambda f: f.number.rule(0) if f.number else names(f.names)
        return Seq(tuple(maybe(Seq((word(f.name), said(f)))) for f in self.fields))

    def tokens(self, value: Any) -> list[str]:
        known = tuple(f.name for f in self.fields)
        value, found = fields(self.kind, value, (), known), []
        for f in self.fields:
            if f.name not in value:
                continue
            found.append(f.name)
            if f.number:
                found += number_tokens(f.number, 0, value[f.name], f"{self.kind}: {f.name}")
            else:
                found += name_tokens(self.kind, f.name, value[f.name], f.names)
        return found

    def value(self, reader: Reader) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for f in self.fields:
            if reader.takes(f.name):
                number = f.number
                found[f.name] = take_number(number, reader, 0) if number else take_name(reader, f.names)  # fmt: skip
        return found


OPEN, CLOSE = "(", ")"
PIECE = re.compile(r"[()]|[^()\s]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree(Form):
    """["scene", ["sky", "day"], ["at", 12, 40]]: a label, then attributes, numbers and further trees in any order.

    Attributes:
      labels, attributes: single words; a word may be both.
      number: the range of all its numbers; None = there are none.
      depth: levels at most, which keeps the automaton finite: the grammar has each level's states once.
      text: rows are text, "(scene (sky day) (at 12 40))", not JSON.
    """

    kind: ClassVar[str] = "tree"
    labels: tuple[str, ...]
    attributes: tuple[str, ...] = ()
    number: Number | None = None
    depth: int = 4
    text: bool = False

    def validate(self) -> None:
        for what in ("labels", "attributes"):
            if found := getattr(self, what):
                check_names(self.kind, what, found, single=True)
                if bad := [w for w in found if set(w) & {OPEN, CLOSE} or _as_number(w) is not None]:
                    raise UserError(f"tree.{what}: {bad[0]!r}: no brackets, and no number")
        if self.depth < 1 or not self.labels:
            raise UserError(f"tree: depth={self.depth}, {len(self.labels)} labels; at least 1 each")

    @property
    def rule(self) -> Rule:
        leaves: tuple[Rule, ...] = (Tokens(self.attributes),) if self.attributes else ()
        leaves += (self.number.rule(0),) if self.number else ()
        around = lambda parts: Seq(
            (word(OPEN), Tokens(self.labels), Many(Choice(parts)), word(CLOSE))
        )
        tree = around(leaves)
        for _ in range(self.depth - 1):
            tree = around((*leaves, tree))
        return tree

    def tokens(self, value: Any, depth: int = 1) -> list[str]:
        if depth > self.depth:
            raise UserError(f"tree: deeper than {self.depth} levels; raise `depth`")
        label, *rest = items(self.kind, value) or [None]
        found = [OPEN, *name_tokens(self.kind, "label", label, self.labels)]
        for part in rest:
            if isinstance(part, str):
                found += name_tokens(self.kind, "attribute", part, self.attributes)
            elif isinstance(part, (list, tuple)):
                found += self.tokens(part, depth + 1)
            elif self.number:
                found += number_tokens(self.number, 0, part, "tree: number")
            else:
                raise UserError(f"tree: {part!r}: this form has no numbers; leave it out")
        return [*found, CLOSE]

    def value(self, reader: Reader) -> list[Any]:
        reader.word((OPEN,))
        found: list[Any] = [reader.word(self.labels)]
        while reader.next != CLOSE:
            if reader.next == OPEN:
                found.append(self.value(reader))
            elif reader.next in self.attributes:
                found.append(reader.word(self.attributes))
            else:
                assert self.number
                found.append(take_number(self.number, reader, 0))
        reader.word((CLOSE,))
        return found

    def from_row(self, row: Any) -> Any:
        """A raw row -> value. Raises UserError: no JSON, or brackets and words that make no tree."""
        if not (self.text and isinstance(row, str)):
            return super().from_row(row)
        return self.read(" ".join(map(self._token, PIECE.findall(row))))

    def _token(self, piece: str) -> str:
        number = _as_number(piece)
        if self.number is None or number is None:
            return piece
        return coordinate(0, self.number.bin(number, "tree: number"))

    def to_row(self, value: Any) -> str:
        return self._text(value) if self.text else super().to_row(value)

    def _text(self, value: Any) -> str:
        inner = (self._text(v) if isinstance(v, list) else str(v) for v in value)
        return f"({' '.join(inner)})"


def _as_number(piece: str) -> int | float | None:
    """A number as JSON writes it; None for anything else."""
    try:
        found = json.loads(piece)
    except ValueError:
        return None
    return found if isinstance(found, (int, float)) and not isinstance(found, bool) else None
