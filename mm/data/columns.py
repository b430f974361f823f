"""Columns: those that fit in memory, those that are read row by row, and the fingerprints of what columns hold."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from mm.data.records import Records


def digest(*parts: np.ndarray | str) -> str:
    """16 hex digits of arrays (type, shape and contents) and strings, for fingerprints."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, str):
            state.update(f"{len(part)} {part}".encode())
        else:
            state.update(f"{part.dtype} {part.shape}".encode())
            state.update(np.ascontiguousarray(part).data)
    return state.hexdigest()


class ArrayColumn:
    """Rows of one array, [n, ...]. See `mm.data.Column`."""

    def __init__(self, rows: np.ndarray):
        self.rows, self.fingerprint = rows, digest(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return self.rows[rows]


class TextColumn:
    """Rows of strings. See `mm.data.Column`."""

    def __init__(self, rows: Sequence[str]):
        self.rows, self.fingerprint = list(rows), digest(*rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: np.ndarray) -> list[str]:
        return [self.rows[i] for i in rows]


class LazyColumn:
    """Rows that are read and decoded when they are asked for, [n, ...]. See `mm.data.Column`.

    Attributes:
      lengths: what is known of the rows before they are brought to one form, by unit: float[n].
      rate: samples per second of rows of sound, else 0.
    """

    def __init__(
        self,
        records: Records,
        fingerprint: str,
        *,
        lengths: Mapping[str, np.ndarray] | None = None,
        rate: int = 0,
    ):
        """Args:
        records: each decoded to an array of one shape and dtype.
        """
        self.records, self.fingerprint = records, fingerprint
        self.lengths, self.rate = dict(lengths or {}), rate

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([self.records[int(i)] for i in rows])
