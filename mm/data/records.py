"""Records that may be damaged: found, named, counted, and replaced, so that positions never shift.

A data set on a cluster's disk loses a block now and then. One lost record must not stop a run of a
week, and it must not move the others: the order of the data is part of a run's identity. So its
place is taken by the next readable record of the same split, and the user is told which file to
restore.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

from mm.errors import UserError


class CorruptLog:
    """Counts unreadable records of one run and names each on stderr, once.

    Attributes:
      limit: so many are replaced; one more stops the run. None = all are replaced, and named in
        `found` alone.
      found: a line for each.
    """

    def __init__(self, limit: int | None):
        self.limit = limit
        self.found: list[str] = []
        self._seen: set[tuple[str, int | None]] = set()

    @property
    def count(self) -> int:
        """Distinct unreadable records so far."""
        return len(self._seen)

    def refuse(self, line: str) -> None:
        """Notes a file that cannot be part of the data.

        Raises:
          UserError: at once, unless there is no limit.
        """
        self.found.append(line)
        if self.limit is not None:
            raise UserError(line)

    def add(self, file: str, index: int | None, reason: str) -> None:
        """Notes an unreadable record.

        Args:
          index: its place in `file`, from 0; None = the file is the record.

        Raises:
          UserError: this is one more than the limit.
        """
        if (file, index) in self._seen:
            return
        self._seen.add((file, index))
        reason = " ".join(reason.split()).removeprefix(f"{file}: ")
        place = file if index is None else f"{file}, record {index}"
        found = f"{place}: unreadable ({reason[:120]})"
        self.found.append(found)
        if self.limit is None:
            return
        if self.count > self.limit:
            raise UserError(
                f"{found}; that is one more than config.data.corrupt_limit={self.limit}: restore "
                "the file (delete its folder, if it was built here), or raise the limit"
            )
        print(f"{found}; replaced by the next readable one", file=sys.stderr, flush=True)


class RandomAccess(Protocol):
    """What records are read from: an array_record data source, a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class ReadsMany(Protocol):
    """A source that reads many records in one call, which may be ten times faster."""

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]: ...


class Records:
    """The records of one split, each readable: an unreadable one is its successor's copy.

    The successor of the last record is the first; none is taken from outside of `rows`, which would
    leak from one split into another.
    """

    def __init__(
        self,
        source: RandomAccess,
        log: CorruptLog,
        *,
        locate: Callable[[int], tuple[str, int | None]],
        decode: Callable[[Any], Any] = lambda record: record,
        rows: Sequence[int] | None = None,
    ):
        """
        Args:
          locate: index in `source` -> (file, place in it), for messages.
          decode: what `source` returns -> the record; whatever it raises counts as unreadable too.
          rows: which records of `source` make the split; None = all.
        """
        self.source, self.log, self.locate, self.decode = source, log, locate, decode
        self.rows = range(len(source)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        """The record at `index`, or the next readable one.

        Raises:
          UserError: more records are unreadable than the log allows, or all are.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        for step in range(len(self)):
            row = int(self.rows[(index + step) % len(self)])
            try:
                return self.decode(self.source[row])
            # Readers and parsers have no common class for "these bytes are damaged".
            except Exception as e:
                self.log.add(*self.locate(row), reason=str(e) or type(e).__name__)
        raise UserError(
            f"{self.locate(int(self.rows[0]))[0]}: no record is readable; restore the file"
        )

    def read(self, chunk: int = 1024) -> list[Any]:
        """All records in order; one by one only where a chunk has an unreadable one.

        Raises:
          UserError: see `__getitem__`.
        """
        records: list[Any] = []
        for start in range(0, len(self), chunk):
            stop = min(start + chunk, len(self))
            try:
                records += self._read_many([int(self.rows[i]) for i in range(start, stop)])
            except Exception:  # found and named one by one
                records += [self[i] for i in range(start, stop)]
        return records

    def _read_many(self, rows: list[int]) -> list[Any]:
        if isinstance(self.source, ReadsMany):
            return [self.decode(record) for record in self.source.__getitems__(rows)]
        return [self.decode(self.source[row]) for row in rows]
