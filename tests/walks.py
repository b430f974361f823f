"""A made-up data set: walks of four shapes by six walkers, beside their maps. All in integers, so that a file of
them is the same on every machine.

    python -m tests.walks walks.npz
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

COUNT, WALKERS, SIDE = 1200, 6, 16
EAST, SOUTH, WEST, NORTH = (1, 0), (0, 1), (-1, 0), (0, -1)
SHAPES = {
    "line": [EAST] * 31,
    "corner": [EAST] * 16 + [SOUTH] * 15,
    "ring": [EAST] * 8 + [SOUTH] * 8 + [WEST] * 8 + [NORTH] * 7,
    "stairs": ([EAST] * 4 + [SOUTH] * 4) * 4,
}


def walk(shape: str, walker: int, rng: np.random.Generator) -> np.ndarray:
    """Places (x, y) of 32 minutes in -100 .. 100, int8[32, 2]: turned, mirrored, and as each walker walks."""
    steps = np.array(SHAPES[shape])[:31] * (4 + walker // 2) + rng.integers(-1, 2, (31, 2))
    for _ in range(rng.integers(4)):
        steps = steps[:, ::-1] * (-1, 1)  # a quarter turn
    steps = steps * (1, rng.choice((-1, 1)))
    places = np.concatenate([[[0, 0]], np.cumsum(steps, 0)])
    low, high = places.min(0), places.max(0)
    room = np.maximum(100 - (high - low + 1) // 2, 0) // 2
    return (
        (places - (low + high) // 2 + rng.integers(-room, room + 1)).clip(-100, 100).astype(np.int8)
    )


def draw(places: np.ndarray) -> np.ndarray:
    """The map of a walk: uint8[16, 16], 255 where somebody walked, two pixels wide."""
    image = np.zeros((SIDE, SIDE), np.uint8)
    x, y = ((places.astype(int) + 100) * (SIDE - 2) // 200).T
    for right, below in np.ndindex(2, 2):
        image[y + below, x + right] = 255
    return image


def make_walks(path: Path, count: int = COUNT, seed: int = 0) -> str:
    """Writes walk int8[n, 32, 2], image uint8[n, 16, 16], shape and walker uint8[n]; returns the file's sha256."""
    rng = np.random.default_rng(seed)
    walker, shape = np.arange(count) % WALKERS, np.arange(count) // WALKERS % len(SHAPES)
    walks = [walk(list(SHAPES)[s], w, rng) for s, w in zip(shape, walker, strict=True)]
    numbers = {"shape": shape.astype(np.uint8), "walker": walker.astype(np.uint8)}
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, walk=np.stack(walks), image=np.stack([draw(w) for w in walks]), **numbers)
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(f"{sys.argv[1]}: {COUNT} walks, sha256 {make_walks(Path(sys.argv[1]))}")
