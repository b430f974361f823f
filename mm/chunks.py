"""A jitted function over any number of rows: a call each for slices of few sizes, so that it compiles few times."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def mapped(run: Callable[[np.ndarray], Any], rows: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """`run` of all rows, in order; also of none, which tells the shape.

    Args:
      run: rows [size, ...] -> [size, ...], each row for itself.
      sizes: rising; the last is used as often as it fits, what is left over is filled up to the smallest that holds it.
    """
    parts, start = [], 0
    while start < len(rows) or not parts:
        left = len(rows) - start
        size = next((s for s in sizes if s >= left), sizes[-1])
        part = rows[start : start + size]
        filled = np.concatenate([part, np.zeros((size - len(part), *rows.shape[1:]), rows.dtype)])
        parts.append(np.asarray(run(filled))[: len(part)])
        start += size
    return np.concatenate(parts)
