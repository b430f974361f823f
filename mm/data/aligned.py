"""Examples whose parts belong together by nature: a picture, its sound and its captions."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mm.data import Column

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, slots=True)
class Aligned:
    """One split of n examples.

    Attributes:
      columns: raw rows by modality.
      first, count: per modality int64[n]: an example's rows are first .. first + count - 1. Of
        several (captions), training draws one anew in every epoch, other splits take the first; of
        none, the modality is absent.
      group: int32[n], see `mm.space.Batch`.
    """

    columns: Mapping[str, Column]
    first: Mapping[str, np.ndarray]
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
            first, count = self.first[name][example], self.count[name][example]
            drawn = 0 if rng is None else (rng.random(n) * count).astype(np.int64)
            rows[name] = np.where(count > 0, first + drawn, -1)
        return rows


def split_order(
    splits: Mapping[str, Aligned], split: str, seed: int, epoch: int
) -> dict[str, np.ndarray]:
    """`mm.data.Source.order` of a source whose splits are `Aligned`."""
    return splits[split].order(np.random.default_rng([seed, epoch]) if split == "train" else None)
