"""A batch to measure with."""

import numpy as np

from mm.space import Batch, TokenSpace


def random_batch(space: TokenSpace, rows: int, seed: int = 0) -> Batch:
    """Full-length examples of random tokens: what tokens say does not change the time."""
    rng = np.random.default_rng(seed)
    ids = {
        m.name: rng.integers(0, m.vocabulary.size, (rows, m.size)).astype(np.int32)
        for m in space.modalities
        if m.vocabulary
    }
    length = {m.name: np.full(rows, m.size, np.int32) for m in space.modalities}
    present = {n: np.ones(rows, bool) for n in space.names}
    return Batch(ids, length, present, rng.integers(0, 10, rows).astype(np.int32))
