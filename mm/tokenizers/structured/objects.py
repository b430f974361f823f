"""Things in a picture or in space: boxes with labels, instances, poses. For label sets of any data.

Boxes      v0=3 v1=10 v2=40 v3=64 large red metal cube
Instances  v0=3 v1=10 v2=40 v3=64 cube point v0=20 v1=31 size v0=700 has red metal
Poses      pose v0=12 v1=500 v2=7 v3=0
"""

import dataclasses
from typing import Any, ClassVar

from mm.tokenizers.structured.automaton import (
    Many,
    Rule,
    Seq,
    Tokens,
    bins,
    corners,
    maybe,
    names,
    word,
)
from mm.tokenizers.structured.form import (
    UNIT,
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
from mm.tokenizers.structured.sentence import Box, Reader


def _box_tokens(kind: str, box: Any, x: Number, y: Number) -> list[str]:
    corners = counted(kind, "box", box, 4)
    for corner, number in zip(corners, (x, y, x, y), strict=True):
        number.bin(corner, f"{kind}: corner")  # says what is no number before corners are compared
    return Box(*corners).write(x.scale(f"{kind}: corner"), y.scale(f"{kind}: corner")).split()


def _take_box(reader: Reader, x: Number, y: Number) -> list[float]:
    return list(dataclasses.astuple(reader.box(x.scale(""), y.scale(""))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Boxes(Form):
    """[{"label": "cat", "box": [x0, y0, x1, y1]}, ...], in the order that is given.

    Attributes:
      labels: that there are, of one or more words. x, y: what corners are, across and down; shares of the picture unless said.
      most: boxes at most; 0 = any number.
    """

    kind: ClassVar[str] = "boxes"
    labels: tuple[str, ...]
    x: Number = UNIT
    y: Number = UNIT
    most: int = 0

    def validate(self) -> None:
        check_names(self.kind, "labels", self.labels)

    @property
    def rule(self) -> Rule:
        return Many(Seq((corners(self.x.last, self.y.last), names(self.labels))), self.most)

    def tokens(self, value: Any) -> list[str]:
        found = []
        for item in items(self.kind, value, self.most):
            item = fields(self.kind, item, ("label", "box"))
            found += _box_tokens(self.kind, item["box"], self.x, self.y)
            found += name_tokens(self.kind, "label", item["label"], self.labels)
        return found

    def value(self, reader: Reader) -> list[dict[str, Any]]:
        found = []
        while reader.next:
            box = _take_box(reader, self.x, self.y)
            found.append({"label": take_name(reader, self.labels), "box": box})
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instances(Form):
    """[{"label", "box", "point": [x, y], "size": 7.5, "attributes": ["red", "metal"]}, ...].

    Attributes:
      labels, x, y, most: as of `Boxes`.
      point: an item may have a point. size: an item may have a size, with this range.
      attributes: single words; items then have a list of some of them (maybe none), in any order.
    """

    kind: ClassVar[str] = "instances"
    labels: tuple[str, ...]
    x: Number = UNIT
    y: Number = UNIT
    point: bool = False
    size: Number | None = None
    attributes: tuple[str, ...] = ()
    most: int = 0

    def validate(self) -> None:
        check_names(self.kind, "labels", self.labels)
        if self.attributes:
            check_names(self.kind, "attributes", self.attributes, single=True)

    @property
    def rule(self) -> Rule:
        parts = [corners(self.x.last, self.y.last), names(self.labels)]
        if self.point:
            parts.append(maybe(Seq((word("point"), bins(0, self.x.last), bins(1, self.y.last)))))
        if self.size:
            parts.append(maybe(Seq((word("size"), self.size.rule(0)))))
        if self.attributes:
            some = Tokens(self.attributes)
            parts.append(maybe(Seq((word("has"), some, Many(some)))))
        return Many(Seq(tuple(parts)), self.most)

    def tokens(self, value: Any) -> list[str]:
        return [t for item in items(self.kind, value, self.most) for t in self._item(item)]

    def _item(self, item: Any) -> list[str]:
        has = ("attributes",) if self.attributes else ()
        more = ("point",) * self.point + ("size",) * (self.size is not None)
        item = fields(self.kind, item, ("label", "box", *has), more)
        found = _box_tokens(self.kind, item["box"], self.x, self.y)
        found += name_tokens(self.kind, "label", item["label"], self.labels)
        if "point" in item:
            across, down = counted(self.kind, "point", item["point"], 2)
            found += ["point", *number_tokens(self.x, 0, across, f"{self.kind}: point")]
            found += number_tokens(self.y, 1, down, f"{self.kind}: point")
        if self.size and "size" in item:
            found += ["size", *number_tokens(self.size, 0, item["size"], f"{self.kind}: size")]
        if has and (given := items(self.kind, item["attributes"])):
            found.append("has")
            for a in given:
                found += name_tokens(self.kind, "attribute", a, self.attributes)
        return found

    def value(self, reader: Reader) -> list[dict[str, Any]]:
        found = []
        while reader.next:
            box = _take_box(reader, self.x, self.y)
            item: dict[str, Any] = {"label": take_name(reader, self.labels), "box": box}
            if reader.takes("point"):
                item["point"] = [take_number(self.x, reader, 0), take_number(self.y, reader, 1)]
            if self.size and reader.takes("size"):
                item["size"] = take_number(self.size, reader, 0)
            if self.attributes:
                item["attributes"] = []
                if reader.takes("has"):
                    while reader.next in self.attributes:
                        item["attributes"].append(reader.word(self.attributes))
            found.append(item)
        return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Poses(Form):
    """[[x, y, z, yaw], ...]: rows of numbers; with labels [{"label": "cube", "pose": [...]}, ...].

    Attributes:
      numbers: (name, range) of each, e.g. (("x", Number(low=-2, high=2)), ...); number i is of the family i mod 4.
      labels: that rows have; () = none. most: rows at most; 0 = any number.
    """

    kind: ClassVar[str] = "poses"
    numbers: tuple[tuple[str, Number], ...]
    labels: tuple[str, ...] = ()
    most: int = 0

    def validate(self) -> None:
        check_names(self.kind, "numbers", [name for name, _ in self.numbers])
        if self.labels:
            check_names(self.kind, "labels", self.labels)

    @property
    def rule(self) -> Rule:
        head = names(self.labels) if self.labels else word("pose")
        row = (number.rule(i % 4) for i, (_, number) in enumerate(self.numbers))
        return Many(Seq((head, *row)), self.most)

    def tokens(self, value: Any) -> list[str]:
        found = []
        for item in items(self.kind, value, self.most):
            head = ["pose"]
            if self.labels:
                item = fields(self.kind, item, ("label", "pose"))
                head = name_tokens(self.kind, "label", item["label"], self.labels)
                item = item["pose"]
            row = counted(self.kind, "row", item, len(self.numbers))
            found += head
            for i, ((name, number), x) in enumerate(zip(self.numbers, row, strict=True)):
                found += number_tokens(number, i % 4, x, f"{self.kind}: {name}")
        return found

    def value(self, reader: Reader) -> list[Any]:
        found = []
        while reader.next:
            label = take_name(reader, self.labels or ("pose",))
            row = [take_number(n, reader, i % 4) for i, (_, n) in enumerate(self.numbers)]
            found.append({"label": label, "pose": row} if self.labels else row)
        return found
