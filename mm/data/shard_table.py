"""One modality of one split of tokens on disk, as a table that is read in blocks.

A record alone costs twenty microseconds, wherever it lies; a block of a thousand hardly more than a few of them. So
whole blocks are read, and the last ones used are kept: `mm.data.tokenized` asks for rows in an order that knows of them.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils.epath import Path

from mm.data.records import CorruptLog
from mm.data.token_files import Form, Shard, open_reader
from mm.errors import UserError

BLOCK = 1024  # records that are read together


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """Some records that follow each other.

    Attributes:
      ids: [n, size]. length: [n]. bad: bool[n], which of them could not be read.
    """

    ids: np.ndarray
    length: np.ndarray
    bad: np.ndarray


def block_starts(shards: Sequence[Shard]) -> np.ndarray:
    """int64[blocks]: the first example of each block of a split. No block reaches over the end of a shard."""
    first, starts = 0, []
    for shard in shards:
        starts.append(first + np.arange(0, shard.examples, BLOCK, dtype=np.int64))
        first += shard.examples
    return np.concatenate(starts)


class ShardTable:
    """See `mm.data.batches.Table`. Row i is example i of the split; where it is absent, nobody asks for it."""

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        form: Form,
        present: np.ndarray,
        log: CorruptLog,
        keep: int,
    ):
        """
        Args:
          present: bool[n], of every example of the split.
          keep: blocks that are held in memory.
        """
        self.form, self.present, self.log = form, present, log
        self.folder, self.shards = folder, shards
        self.starts = block_starts(shards)
        self.ends = np.append(self.starts[1:], len(present))
        self.firsts = np.cumsum([0, *(s.examples for s in shards)])
        self.block = functools.lru_cache(maxsize=keep)(self._read)

    def __len__(self) -> int:
        return len(self.present)

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows int[n] -> ids int32[n, size], lengths int32[n].

        Raises:
          UserError: a record is not what the manifest says, or more are unreadable than the log allows.
        """
        ids = np.zeros((len(rows), self.form.modality.size), np.int32)
        length = np.zeros(len(rows), np.int32)
        for block, at, inside in self._places(rows):
            ids[at], length[at] = block.ids[inside], block.length[inside]
        return ids, length

    def bad(self, rows: np.ndarray) -> np.ndarray:
        """Rows int[n] -> bool[n]: which cannot be read. Raises UserError: see `take`."""
        found = np.zeros(len(rows), bool)
        for block, at, inside in self._places(rows):
            found[at] = block.bad[inside]
        return found

    def _places(self, rows: np.ndarray) -> Any:
        """The blocks that hold the rows: each with places in `rows`, and places in the block."""
        number = np.searchsorted(self.starts, rows, "right") - 1
        for b in np.unique(number).tolist():
            at = np.flatnonzero(number == b)
            yield self.block(b), at, rows[at] - self.starts[b]

    def _read(self, b: int) -> Block:
        start, end = int(self.starts[b]), int(self.ends[b])
        number = int(np.searchsorted(self.firsts, start, "right")) - 1
        shard, first = self.shards[number], int(self.firsts[number])
        path = os.fspath(shard.path(self.folder, self.form.modality.name))
        reader = open_reader(path)
        if reader.num_records() != shard.examples:
            raise UserError(
                f"{path}: {reader.num_records():,} records, by the manifest it has {shard.examples:,}; "
                "restore the file, or tokenize anew"
            )
        records = self._records(reader, path, start - first, end - first)
        return self._decoded(records, path, start, start - first)

    def _records(self, reader: Any, path: str, start: int, end: int) -> list[bytes | None]:
        """Records `start` .. `end` - 1 of a file; None where one cannot be read."""
        try:
            return list(reader.read(start, end))
        except Exception:  # found and named one by one
            return [self._record(reader, path, i) for i in range(start, end)]

    def _record(self, reader: Any, path: str, index: int) -> bytes | None:
        try:
            return reader.read([index])[0]
        except Exception as e:  # the library's errors have no class of their own
            self.log.add(path, index, str(e) or type(e).__name__)
            return None

    def _decoded(self, records: list[bytes | None], path: str, start: int, first: int) -> Block:
        """`start`: the first record's example; `first`: its place in the file."""
        form, present = self.form, self.present[start : start + len(records)]
        bad = np.array([r is None for r in records])
        size = form.size
        there = present & ~bad
        sizes = np.array([size if r is None else len(r) for r in records])
        fits = bool((sizes[~bad] == np.where(present, size, 0)[~bad]).all())
        ids = np.zeros((len(records), form.modality.size), form.dtype)
        length = np.zeros(len(records), form.dtype)
        if fits and there.any():
            held = [r for r, here in zip(records, there.tolist(), strict=True) if here and r]
            ids[there], length[there] = form.unpack(held)
        if not (fits and form.fit(ids, length)):
            self._refuse(records, present, path, first)
        return Block(ids, length, bad)

    def _refuse(
        self, records: list[bytes | None], present: np.ndarray, path: str, first: int
    ) -> None:
        for i, (record, here) in enumerate(zip(records, present.tolist(), strict=True)):
            if record is not None and (why := self.form.wrong(record, here)):
                raise UserError(
                    f"{path}, record {first + i}: {why}; the file is not the manifest's: restore it, or tokenize anew"
                )
