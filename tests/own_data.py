"""A small folder of one's own: coloured shapes, tones that say which, captions, labels."""

import json
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image, ImageDraw

RATE = 16_000
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}
SHAPES = ("circle", "square")


def draw(colour: str, shape: str, rng: np.random.Generator) -> Image.Image:
    """A shape somewhere on a light ground, 60 x 48 pixels."""
    image = Image.new("RGB", (60, 48), tuple(rng.integers(215, 255, 3).tolist()))
    x, y, r = (int(v) for v in (rng.integers(22, 38), rng.integers(18, 30), rng.integers(9, 15)))
    pen = ImageDraw.Draw(image)
    (pen.ellipse if shape == "circle" else pen.rectangle)(
        (x - r, y - r, x + r, y + r), fill=COLOURS[colour]
    )
    return image


def play(colour: str, shape: str, rng: np.random.Generator) -> np.ndarray:
    """0.6 s at 16 kHz: high for red, low for blue; steady for circles, beating for squares."""
    t = np.arange(int(0.6 * RATE)) / RATE
    pitch = (1200 if colour == "red" else 400) * rng.uniform(0.95, 1.05)
    beat = 1.0 if shape == "circle" else np.sin(2 * np.pi * 8 * t) > 0
    return 0.5 * np.sin(2 * np.pi * pitch * t) * beat + 0.001 * rng.standard_normal(len(t))


def make_folder(path: Path, stems: int, seed: int = 0) -> Path:
    """`stems` examples; every 10th lacks its sound, every 15th its picture; some have two captions."""
    rng = np.random.default_rng(seed)
    (path / "images").mkdir(parents=True)
    (path / "audio").mkdir()
    lines = []
    for i in range(stems):
        colour, shape = list(COLOURS)[i % 2], SHAPES[i // 2 % 2]
        image, wave = draw(colour, shape, rng), play(colour, shape, rng)
        if i % 15 != 3:
            image.save(path / "images" / f"s{i:03}.{'jpg' if i % 3 == 0 else 'png'}")
        if i % 10 != 9:
            soundfile.write(path / "audio" / f"s{i:03}.wav", wave, RATE)
        line = {"stem": f"s{i:03}", "caption": f"a {colour} {shape}", "label": f"{colour} {shape}"}
        lines.append(line)
        if i % 4 == 0:
            lines.append({"file": f"s{i:03}.png", "caption": f"one {shape}, all {colour}"})
    (path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
