"""One picture of a dozen records with all their modalities, to be looked at: docs/scenes.png."""

import colorsys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data_pipelines.scenes.record import Record, record
from data_pipelines.scenes.render import FAR
from data_pipelines.scenes.sound import RATE
from data_pipelines.scenes.world import COLOURS, FRAMES, MOST

SIDE = 96  # pixels: more than records have by default, so that they can be seen; scenes do not depend on it
GAP = 4
SCALE = SIDE / 8  # pixels per metre, from above
TEXT = 52  # pixels of height below each row
HEAD = 18
PAPER, INK = (255, 255, 255), (40, 40, 40)
INSTANCES = [(25, 25, 30), (230, 80, 70), (70, 150, 230), (90, 190, 90), (240, 190, 60), (170, 100, 210), (80, 200, 200)]  # fmt: skip
CLASSES = np.array([(140, 180, 220), (120, 110, 100), (220, 90, 80), (90, 190, 90), (240, 200, 80)], np.uint8)  # fmt: skip


def grey(values: np.ndarray) -> np.ndarray:
    """float[...] in 0 .. 1 -> uint8[..., 3]."""
    return np.repeat((255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None], 3, -1)


def _depth(r: Record) -> np.ndarray:
    return grey(1 - np.log(r["depth"] / 3) / np.log(FAR / 3))


def _flow(r: Record) -> np.ndarray:
    """Direction as hue, length as how much colour there is, the longest full."""
    x, y = np.moveaxis(r["flow"], -1, 0)
    turn, length = np.arctan2(y, x) / (2 * np.pi) % 1, np.hypot(x, y)
    wheel = np.array([colorsys.hsv_to_rgb(i / 64, 1, 1) for i in range(64)])[
        (turn * 64).astype(int) % 64
    ]
    return (255 * (1 - (length / length.max())[..., None] * (1 - wheel))).astype(np.uint8)


def _masks(r: Record) -> np.ndarray:
    """All six at half their size, three to a row."""
    half = grey(r["masks"][:, ::2, ::2].astype(float) * 0.85 + 0.15)
    half[:, -1] = half[:, :, -1] = 110
    rows = [np.concatenate(list(half[3 * k : 3 * k + 3]), 1) for k in range(MOST // 3)]
    return np.concatenate(rows, 0)


def _video(r: Record) -> np.ndarray:
    small = r["video"][:, ::2, ::2]
    return np.concatenate([np.concatenate(list(small[4 * k : 4 * k + 4]), 1) for k in range(FRAMES // 4)], 0)  # fmt: skip


def _boxes(r: Record) -> np.ndarray:
    image = Image.fromarray(r["rgb"] // 2 + 40)
    for k, found in enumerate(r["boxes"]):
        x0, y0, x1, y1 = found["box"]
        ImageDraw.Draw(image).rectangle((x0, y0, x1 - 1, y1 - 1), outline=INSTANCES[k + 1])
    return np.asarray(image)


def _poses(r: Record) -> np.ndarray:
    """From above: the camera below, circles of their radii, cubes with their turn."""
    image = Image.new("RGB", (SIDE, SIDE), (240, 240, 240))
    pen = ImageDraw.Draw(image)
    for k, (x, _, depth, yaw, radius, _) in enumerate(r["poses"][: len(r.scene.things)].tolist()):
        at, size = (SIDE / 2 + x * SCALE, (9 - depth) * SCALE), radius * SCALE
        thing = r.scene.things[k]
        if thing.shape == "cube":
            turns = [yaw + np.pi / 4 + i * np.pi / 2 for i in range(4)]
            corners = [(at[0] + size * np.cos(a), at[1] - size * np.sin(a)) for a in turns]
            pen.polygon(corners, fill=COLOURS[thing.colour])
        else:
            pen.ellipse((at[0] - size, at[1] - size, at[0] + size, at[1] + size), fill=COLOURS[thing.colour])  # fmt: skip
    return np.asarray(image)


def _palette(r: Record) -> np.ndarray:
    image = np.full((SIDE, SIDE, 3), 255, np.uint8)
    for k, colour in enumerate(r["palette"]):
        image[k * 13 : k * 13 + 12] = colour
    return image


def _audio(r: Record) -> np.ndarray:
    """Spectrograms up to 3 kHz, left above right, 60 dB."""
    window = 256
    starts = np.linspace(0, RATE - window, 2 * SIDE).astype(int)
    parts = np.stack([r["audio"][s : s + window] for s in starts])
    power = np.abs(np.fft.rfft(parts * np.hanning(window)[None, :, None], axis=1))[:, 1:]
    power = power[:, :96].reshape(2 * SIDE, SIDE // 2, -1, 2).max(2)
    level = 1 + np.log10(np.maximum(power / 16, 1e-3)) / 3
    return np.concatenate([grey(level[:, ::-1, side].T) for side in (0, 1)], 0)


def _trajectory(r: Record) -> np.ndarray:
    """From above, the frame-0 camera in the middle; red is the last."""
    image = Image.new("RGB", (SIDE, SIDE), (240, 240, 240))
    pen = ImageDraw.Draw(image)
    for frame, (x, _, z, *turn) in enumerate(r["trajectory"].tolist()):
        at = np.array([SIDE / 2 + 20 * x, SIDE * 0.6 - 20 * z])
        colour = (40 + 25 * frame, 60, 200 - 20 * frame)
        ahead = 16 * np.array([np.sin(turn[1]), -np.cos(turn[1])])
        pen.line([*at, *(at + ahead)], fill=(200, 200, 200))
        pen.ellipse((*(at - 2), *(at + 2)), fill=colour)
    return np.asarray(image)


def _points(r: Record) -> np.ndarray:
    """The cloud from above and behind."""
    image = np.full((SIDE, SIDE, 3), 240, np.uint8)
    points = r["points"][np.argsort(r["points"][:, 1])[::-1]]
    x = SIDE / 2 + points[:, 0] * SCALE
    y = SIDE * 0.85 + (points[:, 1] - points[:, 2] / 2 + 1) * SCALE
    for a, b, colour in zip(x.astype(int), y.astype(int), points[:, 3:], strict=True):
        if 0 <= a < SIDE - 1 and 0 <= b < SIDE - 1:
            image[b : b + 2, a : a + 2] = 255 * colour
    return image


SHOWN: dict[str, Callable[[Record], np.ndarray]] = {
    "rgb": lambda r: r["rgb"],
    "depth": _depth,
    "normals": lambda r: (127.5 + 127.5 * r["normals"] * [1, -1, -1]).astype(np.uint8),
    "semantic": lambda r: CLASSES[r["semantic"]],
    "instance": lambda r: np.array(INSTANCES, np.uint8)[r["instance"]],
    "masks": _masks,
    "edges": lambda r: grey(1 - r["edges"] / 255),
    "albedo": lambda r: r["albedo"],
    "shading": lambda r: grey(r["shading"]),
    "specular": lambda r: grey(r["specular"] * 1.5),
    "flow": _flow,
    "view": lambda r: r["view"],
    "video": _video,
    "boxes": _boxes,
    "poses": _poses,
    "palette": _palette,
    "audio": _audio,
    "trajectory": _trajectory,
    "points": _points,
}
"""How each modality that is no text is shown, uint8[SIDE, width, 3]."""


def draw_sheet(path: Path, *, seed: int = 0, count: int = 12) -> None:
    """Writes a PNG: a row per record, its texts below."""
    rows = [_row(record(seed, i, side=SIDE)) for i in range(count)]
    image = Image.new("RGB", (rows[0].width, HEAD + sum(r.height for r in rows)), PAPER)
    pen, font, x = ImageDraw.Draw(image), ImageFont.load_default(14), 0
    for name, shown in SHOWN.items():
        pen.text((x, 0), name, fill=INK, font=font)
        x += shown(record(seed, 0, side=SIDE)).shape[1] + GAP
    for k, row in enumerate(rows):
        image.paste(row, (0, HEAD + k * row.height))
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


def _row(r: Record) -> Image.Image:
    tiles = [shown(r) for shown in SHOWN.values()]
    width = sum(t.shape[1] + GAP for t in tiles)
    image = Image.new("RGB", (width, SIDE + TEXT), PAPER)
    x = 0
    for tile in tiles:
        image.paste(Image.fromarray(tile.astype(np.uint8)), (x, 0))
        x += tile.shape[1] + GAP
    metadata = ", ".join(f"{k} {v}" for k, v in r["metadata"].items())
    texts = [r["caption"], r["tree"], metadata]
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    for text, part, share in zip(texts, (0, 0.24, 0.55), (0.23, 0.3, 0.45), strict=True):
        letters = int(width * share / 5.3)
        lines = textwrap.wrap(text, letters)[:5]
        pen.multiline_text(
            (part * width, SIDE + 1), "\n".join(lines), fill=INK, font=font, spacing=0
        )
    return image
