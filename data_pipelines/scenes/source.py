"""Scenes as a source of training data: rows are rendered when they are asked for, and any may be absent."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from etils.epath import Path

from data_pipelines.scenes.drawing import ELEVATION, FIRST, LIGHT, draw
from data_pipelines.scenes.record import MODALITIES, record, shape_of
from data_pipelines.scenes.world import MOST, Scene
from mm import progress
from mm.data import check_modalities
from mm.data.aligned import Aligned, AlignedSource
from mm.data.columns import digest
from mm.data.records import CorruptLog
from mm.errors import UserError, nearest

VERSION = 1
"""Part of the columns' fingerprints: raise it when records change."""


def _within(x: float, ends: tuple[float, float]) -> float:
    return (x - ends[0]) / (ends[1] - ends[0])


LEVELS: dict[str, Callable[[Scene, tuple[int, int]], float]] = {
    "objects": lambda s, few: (len(s.things) - few[0]) / max(few[1] - few[0], 1),
    "metal": lambda s, few: np.mean([t.material == "metal" for t in s.things]).item(),
    "large": lambda s, few: np.mean([t.size == "large" for t in s.things]).item(),
    "moving": lambda s, few: np.mean([bool(t.vx or t.vy) for t in s.things]).item(),
    "camera": lambda s, few: _within(s.path.elevation, ELEVATION),
    "light": lambda s, few: _within(s.light[1], LIGHT),
}
"""What an absence may depend on, each 0 .. 1."""


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Scenes(AlignedSource):
    """Source of scenes. See `mm.data.Source`; docs/scenes.md says what the columns are.

    What is no array is text: captions and trees, and boxes, metadata and palettes as JSON.

    Attributes:
      modalities: names of the columns, of `MODALITIES`. rows: examples of train, validation, test and `unseen`, a
        further test split: in each of its scenes one object has a shape in a colour that no other split has.
      seed: of the scenes. side: of the pictures, in pixels. objects: how many, at least and at most.
      absent: modality -> share of the records that lack it, in all splits (`config.data.missing` drops parts of
        training examples on top). One of each record stays.
      absent_by: modality -> one of `LEVELS` that its absence depends on: the probability grows with it, linearly
        from max(0, 2 share - 1) to min(1, 2 share).
    """

    licence: ClassVar[str] = "Apache-2.0, as the code"
    modalities: tuple[str, ...] = tuple(MODALITIES)
    rows: tuple[int, int, int, int] = (10_000, 1_000, 1_000, 1_000)
    seed: int = 0
    side: int = 64
    objects: tuple[int, int] = (2, 5)
    absent: dict[str, float] = dataclasses.field(default_factory=dict)
    absent_by: dict[str, str] = dataclasses.field(default_factory=dict)

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense."""
        where = "config.data.source"
        check_modalities(self.modalities, tuple(MODALITIES))
        few, most = self.objects
        if not 1 <= few <= most <= MOST or self.side < 8 or self.seed < 0 or min(self.rows) < 1:
            found = f"objects={self.objects}, side={self.side}, seed={self.seed}, rows={self.rows}"
            raise UserError(
                f"{where}: {found}: 1 <= objects <= {MOST}, side >= 8, seed >= 0, rows >= 1"
            )
        for field, names in {"absent": self.absent, "absent_by": self.absent_by}.items():
            for name in names:
                if name not in MODALITIES:
                    raise UserError(
                        f"{where}.{field}: no modality {name!r}{nearest(name, MODALITIES)}"
                    )
        for name, share in self.absent.items():
            if not 0 <= share <= 1:
                raise UserError(f"{where}.absent: {name}={share}: a share is 0 .. 1")
        for name, level in self.absent_by.items():
            if level not in LEVELS or name not in self.absent:
                raise UserError(
                    f"{where}.absent_by: {name}={level!r}: give {name} a share in `absent`, and one "
                    f"of {', '.join(LEVELS)} here"
                )

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Says which records lack what. Nothing is rendered yet.

        Raises:
          UserError: see `validate`.
        """
        self.validate()
        self._splits = {}
        for split, rows in zip(FIRST, self.rows, strict=True):
            there = self.present(split, rows)
            numbers = FIRST[split] + np.arange(rows)
            self._splits[split] = Aligned(
                columns={m: SceneColumn(self, m, numbers[there[m]]) for m in self.modalities},
                count={m: there[m].astype(np.int64) for m in self.modalities},
                group=np.arange(rows, dtype=np.int32),
            )

    def present(self, split: str, rows: int) -> dict[str, np.ndarray]:
        """Per modality bool[rows]: which of the first records of a split have it; each a function of (seed, index)."""
        drawn = np.random.default_rng([self.seed, FIRST[split], 1]).random((rows, len(MODALITIES)))
        at = [list(MODALITIES).index(m) for m in self.modalities]
        share = np.array([self.absent.get(m, 0.0) for m in self.modalities])
        limit = np.tile(share, (rows, 1))
        for m, level in self.absent_by.items():
            if m in self.modalities:
                low, high = max(0.0, 2 * self.absent[m] - 1), min(1.0, 2 * self.absent[m])
                levels = self._levels(split, rows)[level]
                limit[:, self.modalities.index(m)] = low + (high - low) * levels
        kept = drawn[:, at] >= limit
        kept[np.arange(rows), (drawn[:, at] - limit).argmax(1)] = True
        return {m: kept[:, i] for i, m in enumerate(self.modalities)}

    def _levels(self, split: str, rows: int) -> dict[str, np.ndarray]:
        names, first = sorted(set(self.absent_by.values())), FIRST[split]
        found = np.zeros((rows, len(names)))
        for i in progress.track(range(rows), f"which scenes of {split} lack what"):
            scene = draw(self.seed, first + i, self.objects)
            found[i] = [LEVELS[n](scene, self.objects) for n in names]
        return {n: found[:, k] for k, n in enumerate(names)}


class SceneColumn:
    """Rows of one modality, rendered when they are asked for. See `mm.data.Column`."""

    def __init__(self, of: Scenes, name: str, numbers: np.ndarray):
        """
        Args:
          numbers: int64[rows], the records.
        """
        self.of, self.name, self.numbers = of, name, numbers
        settings = json.dumps([VERSION, of.seed, of.side, list(of.objects), name])
        self.fingerprint = digest(settings, numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray | list[str]:
        found = [self._row(int(self.numbers[i])) for i in rows]
        shape = shape_of(self.name, self.of.side)
        if shape is None:
            return found
        return np.stack(found) if found else np.zeros((0, *shape), MODALITIES[self.name].dtype)

    def _row(self, number: int) -> Any:
        of = self.of
        made = record(of.seed, number, side=of.side, objects=of.objects, names=(self.name,))
        return as_row(self.name, made[self.name])


def as_row(name: str, value: Any) -> Any:
    """A value of a record as a row: arrays and texts as they are, what is a list or dict as JSON."""
    return json.dumps(value) if MODALITIES[name].dtype in ("list", "dict") else value


def from_row(name: str, row: Any) -> Any:
    """The inverse of `as_row`."""
    return json.loads(row) if MODALITIES[name].dtype in ("list", "dict") else row


def rows_of(source: Scenes, numbers: Sequence[int]) -> list[Mapping[str, Any]]:
    """Whole records of a source, all its modalities from one rendering each."""
    made = (
        record(source.seed, n, side=source.side, objects=source.objects, names=source.modalities)
        for n in numbers
    )
    return [{name: as_row(name, r[name]) for name in source.modalities} for r in made]
