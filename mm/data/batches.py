"""Batches as a pure function of the step, whoever asks and whatever was asked before.

So a run may start at any step, and any number of threads may make batches ahead of it.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import grain
import numpy as np

from mm.data import Column
from mm.space import Batch


class Table(Protocol):
    """One column in tokens, in memory or on disk."""

    def __len__(self) -> int: ...

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows int[n] -> ids int32[n, size] (of a dense modality values, float32[n, size, features]), lengths int32[n]."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class TokenTable:
    """See `Table`; one that is in memory.

    Attributes:
      ids: int32[N, size]; of a dense modality its values, float32[N, size, features]. length: int32[N], filled places.
    """

    ids: np.ndarray
    length: np.ndarray

    def __len__(self) -> int:
        return len(self.length)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.ids[rows], self.length[rows]


Rows = Mapping[str, np.ndarray]
"""Per column int64[n] (-1 = absent), and `group` int32[n]: see `mm.data.Source.order`."""


class Batches:
    """Random access to the batches of a run.

    Example j of batch i is number i * batch_size + j of all epochs, which follow each other without
    a gap: a batch may have the end of one and the start of the next.
    """

    def __init__(
        self,
        order: Callable[[int], Rows],
        make: Callable[[Rows], Any],
        *,
        batch_size: int,
        steps: int,
        part: slice = slice(None),
    ):
        """
        Args:
          order: epoch -> the rows of its examples; the same number in every epoch.
          make: the rows of a batch -> the batch, see `make_tokens`, `make_raw`.
          part: which examples of each batch are made here; a host makes its own.
        """
        self.batch_size, self.steps, self.make, self.part = batch_size, steps, make, part
        self.order = functools.lru_cache(maxsize=3)(order)  # threads may be an epoch apart
        self.count = len(self.order(0)["group"])

    def __len__(self) -> int:
        return self.steps

    def rows(self, step: int) -> dict[str, np.ndarray]:
        """Which rows make (this part of) batch `step`."""
        number = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[self.part]
        epoch, place = np.divmod(number, self.count)
        parts = []
        for e in range(epoch[0], epoch[-1] + 1):
            order = self.order(int(e))
            parts.append({name: rows[place[epoch == e]] for name, rows in order.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def __getitem__(self, index: int) -> Any:
        """The batch of step `index`, 0 <= index < steps."""
        if not 0 <= index < self.steps:
            raise IndexError(f"batch {index} of {self.steps}")
        return self.make(self.rows(index))


def make_tokens(tables: Mapping[str, Table], rows: Rows) -> Batch:
    """Rows -> aligned examples in tokens; what is absent has ids 0 and length 0."""
    ids, length, present, values = {}, {}, {}, {}
    for name, table in tables.items():
        present[name] = there = rows[name] >= 0
        said, length[name] = (_placed(part, there) for part in table.take(rows[name][there]))
        if said.ndim == 3:
            values[name], said = said, np.zeros(said.shape[:2], np.int32)
        ids[name] = said
    return Batch(ids, length, present, rows["group"].astype(np.int32), values)


def _placed(part: np.ndarray, there: np.ndarray) -> np.ndarray:
    """Rows of what is `there`, among zeros."""
    if len(part) == len(there):
        return part
    whole = np.zeros((len(there), *part.shape[1:]), part.dtype)
    whole[there] = part
    return whole


def make_raw(columns: Mapping[str, Column], rows: Rows) -> dict[str, Any]:
    """Rows -> {column: raw rows, "group": int32[B], "present": {column: bool[B]}}; what is absent is zeros, or an empty text."""
    present = {name: rows[name] >= 0 for name in columns}
    batch: dict[str, Any] = {"group": rows["group"].astype(np.int32), "present": present}
    for name, column in columns.items():
        absent = ~present[name]
        values = column[np.maximum(rows[name], 0)]
        if absent.any() and isinstance(values, np.ndarray):
            values = values.copy()
            values[absent] = 0
        elif absent.any():
            values = ["" if gone else v for gone, v in zip(absent, values, strict=True)]
        batch[name] = values
    return batch


def serve(batches: Batches, *, start: int, threads: int) -> Iterator[Any]:
    """Batches `start` .. the last, made ahead by so many threads of Grain (0: not made ahead)."""
    if start >= len(batches):
        return iter(())
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads)
    return iter(grain.MapDataset.source(batches)[start:].to_iter_dataset(options))
