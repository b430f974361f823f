"""One modality of one split, from raw rows to records; a row that cannot be tokenized is named by file and record."""

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from mm.data.crops import Crops
from mm.data.token_files import Form
from mm.errors import UserError

CHUNK = 2048, 64 << 20  # rows that are tokenized at a time, and bytes of them, at most


class Writing:
    """A column with the tokenizer it is written by."""

    def __init__(self, what: str, form: Form, column: Any, tokenizer: Any, crops: Crops | None):
        """
        Args:
          what: for messages: "image/train".
        """
        self.what, self.form, self.column = what, form, column
        self.tokenizer, self.crops = tokenizer, crops
        limits = getattr(getattr(tokenizer, "settings", None), "limits", None)
        self.limits: tuple[float, float] = limits or (-np.inf, np.inf)

    def records(self, rows: np.ndarray, boxes: np.ndarray | None) -> Iterator[list[bytes]]:
        """The records of some examples, in order and in parts; empty where `rows` is -1.

        Beside an accelerator rows are read in a thread and encoded in another, while what was encoded is written.

        Args:
          rows: int64[n], of the column. boxes: their crops, float64[n, 5], see `Crops.draw`.

        Raises:
          UserError: a row is not what the tokenizer takes, or its values are no numbers, or outside of its limits.
        """
        size = self._chunk(rows)
        parts = [np.arange(i, min(i + size, len(rows))) for i in range(0, len(rows), size)]
        there = [part[rows[part] >= 0] for part in parts]
        raw = ahead(self._read(rows[t], None if boxes is None else boxes[t]) for t in there)
        packed = ahead(
            self._packed(*both) for both in zip(raw, (rows[t] for t in there), strict=True)
        )
        for part, t, found in zip(parts, there, packed, strict=True):
            made = [b""] * len(part)
            for i, record in zip((t - part[0]).tolist(), found, strict=True):
                made[i] = record
            yield made

    def _chunk(self, rows: np.ndarray) -> int:
        """Rows that are read at a time: a power of two, as the tokenizers' own calls have."""
        most, size = CHUNK
        first = rows[rows >= 0][:1]
        each = getattr(self.column[first], "nbytes", 1) if len(first) else 1
        return min(most, 1 << max((size // max(each, 1)).bit_length() - 1, 4))

    def _read(self, rows: np.ndarray, boxes: np.ndarray | None) -> Any:
        """Raw rows, cropped."""
        if not len(rows):
            return []
        distinct, place = np.unique(rows, return_inverse=True)
        repeated = len(distinct) < len(rows)  # crops of an example, captions of a picture
        try:
            raw = self.column[distinct if repeated else rows]
        except ValueError as e:  # rows of different shapes
            for row in distinct:
                self._encode(self.column[row[None]], row[None])
            raise UserError(f"{self.what}: {e}; bring all rows to one form") from e
        if repeated:
            raw = raw[place] if isinstance(raw, np.ndarray) else [raw[i] for i in place]
        if boxes is None or self.crops is None:
            return raw
        try:
            return self.crops.cropped(self.form.modality.name, raw, boxes)
        except ValueError as e:
            raise UserError(f"{e}; take it out of config.data.crops") from e

    def _packed(self, raw: Any, rows: np.ndarray) -> list[bytes]:
        return self.form.pack(*self._encode(raw, rows)) if len(rows) else []

    def _encode(self, raw: Any, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self._check(raw, rows)
        try:
            return self.tokenizer.encode(raw)
        except (ValueError, UserError) as e:
            for i in range(len(rows)):
                try:
                    self.tokenizer.encode(raw[i : i + 1])
                except (ValueError, UserError) as one:
                    raise UserError(f"{self.place(int(rows[i]))}: {one}") from e
            raise

    def _check(self, raw: Any, rows: np.ndarray) -> None:
        low, high = self.limits
        if not isinstance(raw, np.ndarray) or not (raw.dtype.kind == "f" or np.isfinite(low)):
            return
        with np.errstate(invalid="ignore", over="ignore"):
            sums = raw.reshape(len(raw), -1).sum(1)
        if not np.isfinite(low) and np.isfinite(sums).all():
            return  # a sum is not finite where a value is not: one pass over all of them
        right = np.isfinite(raw) & (raw >= low) & (raw <= high)
        if right.all():
            return
        wrong = ~right.reshape(len(raw), -1)
        i = int(wrong.any(1).argmax())
        value = raw.reshape(len(raw), -1)[i][wrong[i]][0]
        allowed = f", allowed are {low:g} .. {high:g}" if np.isfinite(low) else ""
        raise UserError(
            f"{self.place(int(rows[i]))}: has the value {value}{allowed}; mend it, or take it out of the data"
        )

    def place(self, row: int) -> str:
        """A row's file and record, or else its number in the column."""
        records = getattr(self.column, "records", None)
        if records is None:
            return f"{self.what}, row {row}"
        file, record = records.locate(int(records.rows[row]))
        return file if record is None else f"{file}, record {record}"


def ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The items, the next one made in a thread while this one is used.

    Not where a tokenizer runs on the CPU: it has all cores already, and a thread beside it took 4% of its throughput
    (28 x 28 pictures, two cores).
    """
    if jax.default_backend() == "cpu":
        yield from items
        return
    over = object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, over)
        while (item := waiting.result()) is not over:
            waiting = pool.submit(next, items, over)
            yield item
