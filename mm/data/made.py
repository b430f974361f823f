"""Data that a function makes of a seed: toys whose truth is known."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils.epath import Path

from mm.data import check_modalities
from mm.data.aligned import SPLITS, Aligned, AlignedSource
from mm.data.columns import ArrayColumn
from mm.data.records import CorruptLog


# No slots: what `open` makes is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class MadeSource(AlignedSource):
    """Base of made sources, which say `made`. See `mm.data.Source`.

    Attributes:
      modalities: names of the columns. rows: examples of train, validation and test.
      seed: of the data; a run's own seed draws its order and its weights.
    """

    modalities: tuple[str, ...]
    rows: tuple[int, int, int] = (10_000, 1_000, 5_000)
    seed: int = 0

    def made(self, rng: np.random.Generator, rows: int, split: str) -> Mapping[str, Any]:
        """Columns of so many examples, [rows, ...].

        Two names are not columns: `group` int[rows], where examples are positives of others, and `present`,
        {column: bool[rows]}, where some are absent.
        """
        raise NotImplementedError

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Makes all splits, each with random numbers of its own."""
        self._splits = {}
        for i, (split, rows) in enumerate(zip(SPLITS, self.rows, strict=True)):
            columns = dict(self.made(np.random.default_rng([self.seed, i]), rows, split))
            group = columns.pop("group", np.arange(rows))
            there = {m: np.ones(rows, bool) for m in columns} | columns.pop("present", {})
            check_modalities(self.modalities, tuple(columns))
            self._splits[split] = Aligned(
                columns={m: ArrayColumn(np.asarray(columns[m])[there[m]]) for m in self.modalities},
                count={m: there[m].astype(np.int64) for m in self.modalities},
                group=np.asarray(group, np.int32),
            )
