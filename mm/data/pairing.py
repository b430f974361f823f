"""Examples made by label, where the data does not say which rows of two columns belong together."""

import numpy as np


def partners(group: np.ndarray, row_group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A row of its own group for each example; -1 where the group has no rows.

    Each group's rows are permuted, and permuted again when they are used up: how often rows of a
    group are used differs by one at most.

    Args:
      group: int[n], of the examples. row_group: int[rows], of the rows to choose from.

    Returns:
      int64[n], indices of rows.
    """
    chosen = np.full(len(group), -1, np.int64)
    for g in np.unique(group):
        examples, rows = np.flatnonzero(group == g), np.flatnonzero(row_group == g)
        if len(rows):
            rounds = [rng.permutation(rows) for _ in range(-(-len(examples) // len(rows)))]
            chosen[examples] = np.concatenate(rounds)[: len(examples)]
    return chosen


def halves(group: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """bool[n], True for a random half of each group's examples (rounded down)."""
    chosen = np.zeros(len(group), bool)
    for g in np.unique(group):
        examples = np.flatnonzero(group == g)
        chosen[rng.permutation(examples)[: len(examples) // 2]] = True
    return chosen
