"""Columns that fit in memory, and the fingerprints of what columns hold."""

import hashlib

import numpy as np


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
