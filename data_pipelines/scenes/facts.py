"""Facts of a scene that are written as numbers and names: boxes, poses, palette, metadata, the camera's way."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.scenes import render
from data_pipelines.scenes.world import FRAMES, MOST, SHAPES

if TYPE_CHECKING:
    from data_pipelines.scenes.record import Record

COLOURS = 7  # at most, of a palette: 4M's form has no more


def boxes(r: "Record") -> list[dict[str, Any]]:
    """Per object, in their order: its name, and the smallest box around what is seen of it.

    Returns:
      {"label": "large red metal cube", "box": [x0, y0, x1, y1]}, pixels, x1 and y1 the first outside: divided by the
      side of the picture they are shares of it.
    """
    found = []
    for thing, mask in zip(r.scene.things, r["masks"], strict=False):
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = [x[0], y[0], x[-1] + 1, y[-1] + 1] if len(x) else [0, 0, 0, 0]
        found.append({"label": thing.name, "box": [int(v) for v in box]})
    return found


def poses(r: "Record") -> np.ndarray:
    """float32[MOST, 6]: middle (x, y, z in camera axes, metres), yaw, radius, half the height; rows of 0 follow.

    Yaw is a cube's turn about the vertical against the camera's, 0 .. pi / 2, after which a cube looks the same; 0 for
    what is round.
    """
    found, view = np.zeros((MOST, 6), np.float32), r.view(0)
    for row, thing in zip(found, r.scene.things, strict=False):
        yaw = (thing.yaw - r.scene.path.azimuth) % (np.pi / 2) if thing.shape == "cube" else 0.0
        row[:] = *view.seen(thing.middle()), yaw, thing.radius, thing.half
    return found


def trajectory(r: "Record") -> np.ndarray:
    """float32[FRAMES, 6]: where the camera is (metres, in its axes of frame 0), and how it is turned since (a vector

    along the axis, as long as the angle in radians): a point X of frame 0's axes is rotation(v).T @ (X - position) later.
    """
    first, found = r.view(0), np.zeros((FRAMES, 6))
    for frame in range(1, FRAMES):
        view = r.view(frame)
        found[frame, :3] = first.seen(view.origin)
        found[frame, 3:] = _rotation_vector(first.rotation @ view.rotation.T)
    return found.astype(np.float32)


def _rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """Axis times angle, for angles below pi."""
    twice = np.array([
        rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1],
    ])  # fmt: skip
    length = np.sqrt(twice @ twice)
    angle = np.arctan2(length, np.trace(rotation) - 1)
    return twice * (angle / length if length > 1e-12 else 0.5)


def palette(r: "Record") -> list[list[int]]:
    """The colours (of the albedo) with most pixels, at most 7, most first: [[red, green, blue], ...]."""
    pixels = r["albedo"].reshape(-1, 3).astype(np.int64)
    codes, count = np.unique(pixels @ [65536, 256, 1], return_counts=True)
    most = codes[np.lexsort([codes, -count])][:COLOURS]
    return [[int(c) >> 16, int(c) >> 8 & 255, int(c) & 255] for c in most]


def metadata(r: "Record") -> dict[str, int | float | str]:
    """Counts, names, shares of the picture (0 .. 1), lengths in metres and angles in degrees; see docs/scenes.md."""
    things, path, light = r.scene.things, r.scene.path, r.scene.light
    counts = {f"{s}s": sum(t.shape == s for t in things) for s in SHAPES}
    counts |= {f"{v}_objects": sum(v in (t.size, t.material) for t in things) for v in ("large", "metal")}  # fmt: skip
    return {
        "objects": len(things),
        **counts,
        "colours": len({t.colour for t in things}),
        "moving_objects": sum(bool(t.vx or t.vy) for t in things),
        "ground": r.scene.ground,
        "sky": r.scene.sky,
        **_shares(r),
        **_looks(r["rgb"]),
        "camera_height": round(float(path.view().origin[2]), 2),
        "camera_distance": round(path.distance, 2),
        "camera_elevation": round(math.degrees(path.elevation), 1),
        "camera_turn": round(math.degrees(path.turn), 2),
        "light_azimuth": round(math.degrees(light[0] - path.azimuth) % 360, 1),
        "light_elevation": round(math.degrees(light[1]), 1),
        "caption_words": len(r["caption"].split()),
    }


def _shares(r: "Record") -> dict[str, float]:
    semantic, depth = r["semantic"], r["depth"]
    seen = np.bincount(r["instance"].ravel(), minlength=MOST + 1)[1 : len(r.scene.things) + 1]
    hidden = 1 - seen / np.maximum(r.covered, 1)
    solid = semantic != render.SKY
    figures = {
        "sky_share": np.mean(~solid),
        "ground_share": np.mean(semantic == render.GROUND),
        "object_share": np.mean(semantic > render.GROUND),
        "shadow_share": np.mean(r.map("shadow")),
        "edge_share": np.mean(r["edges"] > 0),
        "hidden_share": np.mean(hidden),
        "nearest_depth": depth.min(),
        "mean_depth": depth[solid].mean(),
    }
    return {name: round(float(x), 3) for name, x in figures.items()}


def _looks(rgb: np.ndarray) -> dict[str, float]:
    """Brightness and contrast (mean and deviation of the grey level), saturation (0 .. 255), colourfulness.

    Source: Hasler and Suesstrunk 2003, Measuring colourfulness in natural images (the last one).
    """
    red, green, blue = np.moveaxis(rgb.astype(np.float32), -1, 0)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    top, low = rgb.max(-1).astype(np.float32), rgb.min(-1)
    a, b = red - green, (red + green) / 2 - blue
    figures = {
        "brightness": grey.mean(),
        "contrast": grey.std(),
        "saturation": (255 * (top - low) / np.maximum(top, 1)).mean(),
        "colourfulness": np.hypot(a.std(), b.std()) + 0.3 * np.hypot(a.mean(), b.mean()),
    }
    return {name: round(float(x), 1) for name, x in figures.items()}
