"""What a scene sounds like: its objects are struck one after the other, the nearest first.

Each rings by what it is: shape says how its partials lie, size how high they are, material how long they last. It is as
far to the left or right as in the picture (equal power), and fainter the farther it is: no two facts share a clue.
"""

import functools

import numpy as np

from data_pipelines.scenes.world import MATERIALS, MOST, SHAPES, SIZES, Scene

RATE = 8000
LENGTH = 8000
FIRST_AT, APART = 160, 1040  # samples: when the nearest is struck, and from each to the next
FULL = 2.5  # metres: what is nearer is not louder
PARTIALS = {"cube": (1.0, 1.5, 2.52), "sphere": (1.0, 2.0, 3.0), "cylinder": (1.0, 2.76, 5.4)}
PITCH = {"small": 520.0, "large": 260.0}  # hertz
RING = {"rubber": 0.03, "metal": 0.25}  # seconds, until it is 1 / e of what it was


@functools.cache
def struck(shape: str, size: str, material: str) -> np.ndarray:
    """float32[8000] at 8 kHz: the sound of an object from its stroke on, of peak 1."""
    time = np.arange(LENGTH) / RATE
    sound = np.zeros(LENGTH)
    for i, ratio in enumerate(PARTIALS[shape]):
        fading = np.exp(-time * (1 + 0.5 * i) / RING[material])
        sound += fading * np.sin(2 * np.pi * PITCH[size] * ratio * time) / (1 + i)
    return (sound / np.abs(sound).max()).astype(np.float32)


def gains(across: float, depth: float) -> np.ndarray:
    """Left and right, float64[2], of an object at `across` (0 .. 1 of the picture), `depth` metres forward.

    The squares add up to (FULL / depth)^2 / MOST^2, so that even six strokes at once stay within -1 .. 1.
    """
    turn = np.clip(across, 0, 1) * np.pi / 2
    return np.array([np.cos(turn), np.sin(turn)]) * min(1.0, FULL / depth) / MOST


def audio(scene: Scene) -> np.ndarray:
    """float32[8000, 2]: left and right at 8 kHz, in [-1, 1]."""
    mixed, places = np.zeros((LENGTH, 2), np.float32), scene.places(1)
    for turn, k in enumerate(np.argsort(places[:, 2], kind="stable")):
        thing, at = scene.things[k], FIRST_AT + turn * APART
        sound = struck(thing.shape, thing.size, thing.material)[: LENGTH - at]
        mixed[at:] += sound[:, None] * gains(places[k, 0], places[k, 2]).astype(np.float32)
    return mixed


def heard(samples: np.ndarray) -> list[dict]:
    """What sounds, in the order of the strokes: the inverse of `audio`, by the best of the twelve sounds each time.

    Args:
      samples: float32[8000, 2].

    Returns:
      per object: shape, size, material, across (0 .. 1 of the picture), depth (metres).
    """
    left, found = samples.astype(np.float64), []
    kinds = [(a, b, c) for a in SHAPES for b in SIZES for c in MATERIALS]
    for turn in range(MOST):
        at = FIRST_AT + turn * APART
        part = left[at : at + APART]
        sounds = np.stack([struck(*kind)[:APART] for kind in kinds]).astype(np.float64)
        fit = sounds @ part / (sounds * sounds).sum(1)[:, None]  # [12, 2]
        wrong = [np.square(part - s[:, None] * g).sum() for s, g in zip(sounds, fit, strict=True)]
        best = int(np.argmin(wrong))
        power = float(np.hypot(*fit[best]))
        if power < 1e-3:
            break
        left[at:] -= struck(*kinds[best])[: LENGTH - at, None] * fit[best]
        across = float(np.arctan2(fit[best, 1], fit[best, 0]) / (np.pi / 2))
        named = dict(zip(("shape", "size", "material"), kinds[best], strict=True))
        found.append({**named, "across": across, "depth": FULL / (power * MOST)})
    return found
