"""Examples whose parts belong together by nature: a picture, its sound and its captions."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mm.data import Column, check_modalities
from mm.data.columns import ArrayColumn, TextColumn
from mm.errors import UserError

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Aligned:
    """One split of n examples.

    Attributes:
      columns: raw rows by modality, those of one example next to each other.
      count: per modality int[n]: how many rows each example has. Of several (captions), training
        draws one anew in every epoch, other splits take the first; of none, the modality is absent.
      group: int32[n], see `mm.space.Batch`.
    """

    columns: Mapping[str, Column]
    count: Mapping[str, np.ndarray]
    group: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    def order(self, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
        """One epoch's rows, see `mm.data.Source.order`; None = in their order, first rows."""
        n = len(self)
        example = np.arange(n) if rng is None else rng.permutation(n)
        rows: dict[str, np.ndarray] = {"group": self.group[example]}
        for name in self.columns:
            first = np.cumsum(self.count[name], dtype=np.int64) - self.count[name]
            first, count = first[example], self.count[name][example]
            drawn = 0 if rng is None else (rng.random(n) * count).astype(np.int64)
            rows[name] = np.where(count > 0, first + drawn, -1)
        return rows


class AlignedSource:
    """What sources of aligned examples share, see `mm.data.Source`: their `open` fills `_splits`.

    Rows that are in memory, one of each modality per example, are split by `hold`; others become
    an `Aligned` per split.
    """

    modalities: tuple[str, ...]
    _splits: dict[str, Aligned]

    def columns(self, split: str) -> Mapping[str, Any]:
        """Raw columns by modality; see the class."""
        return self._splits[split].columns

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        """Which rows make the examples of one epoch; see `mm.data.Source`."""
        rng = np.random.default_rng([seed, epoch]) if split == "train" else None
        return self._splits[split].order(rng)

    def hold(
        self, rows: Mapping[str, np.ndarray | Sequence[str]], *, group: Any, split: Any
    ) -> None:
        """Takes n examples that are in memory.

        Args:
          rows: per modality an array [n, ...], or n strings; what `modalities` does not name is left out.
          group: int[n]; examples of one group are each other's positives.
          split: n of train, validation and test, each at least once.

        Raises:
          UserError: `modalities` names what is not in `rows`; numbers of rows differ; a split is
            empty, or unknown.
        """
        check_modalities(self.modalities, tuple(rows))
        split, what = np.asarray(split), type(self).__name__
        sizes = {name: len(part) for name, part in {**rows, "group": group, "split": split}.items()}
        if len(set(sizes.values())) > 1:
            raise UserError(
                f"{what}: rows of different number, {sizes}; give one of each per example"
            )
        if set(split.tolist()) != set(SPLITS):
            found = ", ".join(map(str, sorted(set(split.tolist()))))
            raise UserError(
                f"{what}: examples of the splits {found}; give some to each of {SPLITS}"
            )
        self._splits = {}
        for name in SPLITS:
            chosen = np.flatnonzero(split == name)
            self._splits[name] = Aligned(
                columns={m: _column(rows[m], chosen) for m in self.modalities},
                count={m: np.ones(len(chosen), np.int64) for m in self.modalities},
                group=np.asarray(group, np.int32)[chosen],
            )


def _column(rows: np.ndarray | Sequence[str], chosen: np.ndarray) -> Column:
    if isinstance(rows, np.ndarray) and rows.dtype.kind not in "UO":
        return ArrayColumn(rows[chosen])
    return TextColumn([str(rows[i]) for i in chosen])
