"""Sample files as pictures: what a page or a README can show of a sound, a sentence or an array."""

import io
import textwrap

import numpy as np
import soundfile
from etils.epath import Path
from PIL import Image, ImageDraw, ImageFont

PICTURES = (".png", ".jpg", ".jpeg")
SOUNDS = (".wav", ".flac", ".ogg")
TEXT, ARRAY = ".txt", ".npy"
NEAREST = Image.Resampling.NEAREST
INK, PAPER, GIVEN, WRONG = (20, 24, 32), (255, 255, 255), (228, 233, 240), (214, 64, 50)


def spectrogram(wave: np.ndarray, *, frame: int = 256, hop: int = 64) -> Image.Image:
    """Log power of a waveform float[samples]: time to the right, high notes above, loud = dark."""
    wave = np.pad(np.asarray(wave, np.float32), (0, max(frame - len(wave), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(wave, frame)[::hop] * np.hanning(frame)
    level = 20 * np.log10(np.abs(np.fft.rfft(frames)).T[::-1] + 1e-9)
    loud = (level - level.max()) / 60 + 1  # 60 dB below the loudest is white
    return Image.fromarray((255 * (1 - np.clip(loud, 0, 1))).astype(np.uint8)).convert("RGB")


def waveform(path: Path) -> np.ndarray:
    """A sound file's samples, channels averaged, float32[samples] in [-1, 1]."""
    sound = io.BytesIO(path.read_bytes())
    samples, _ = soundfile.read(sound, dtype="float32", always_2d=True)
    return samples.mean(1)


def greys(path: Path, side: int) -> Image.Image:
    """A .npy array as a square of greys, its least value white, its greatest black: nothing says what it looks like.

    Its first axis goes down, all others across; a vector is one line.
    """
    array = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False).astype(np.float64)
    rows = array.reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    light = (rows.max() - rows) / max(float(np.ptp(rows)), 1e-30)
    return Image.fromarray((255 * light).astype(np.uint8)).resize((side, side), NEAREST)


def tile(path: Path, size: int) -> Image.Image:
    """A sample file as a square picture: itself, a sound's spectrogram, an array's greys, or a text's words."""
    try:
        if path.suffix in PICTURES:
            picture = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        elif path.suffix in SOUNDS:
            picture = spectrogram(waveform(path))
        elif path.suffix == ARRAY:
            picture = greys(path, size).convert("RGB")
        else:
            return _written(words(path), size)
        return picture.resize((size, size), Image.Resampling.LANCZOS)
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # a file that was moved or cut: the others are still shown
        return _written("(unreadable)", size)


def words(path: Path) -> str:
    """A text; the name of a file of any other kind."""
    return path.read_text(encoding="utf-8").strip() if path.suffix == TEXT else path.name


def _written(text: str, size: int) -> Image.Image:
    image = Image.new("RGB", (size, size), PAPER)
    lines, font = textwrap.wrap(text, 10)[:5], ImageFont.load_default(size / 6.5)
    place = (size / 2, size / 2)
    draw = ImageDraw.Draw(image)
    draw.multiline_text(place, "\n".join(lines), INK, font, anchor="mm", align="center")
    return image


def grid(samples: dict, folder: Path, *, size: int = 64, across: int = 5) -> Image.Image:
    """All cells in one picture: a row per source, a column per target, the inputs on the diagonal.

    Args:
      samples: what `mm.evals.samples` wrote into `folder`.
    """
    table = cells(samples)
    names = list(dict.fromkeys(name for pair in table for name in pair))
    most = max(len(files) for files, _ in table.values())
    width, height = across * size + 16, -(-most // across) * size + 16
    left, top = 104, 30
    sheet = Image.new("RGB", (left + width * len(names), top + height * len(names)), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for i, name in enumerate(names):
        x, y = left + i * width, top + i * height
        draw.text((x + width // 2, top // 2), f"to {name}", INK, font, anchor="mm")
        draw.text((left // 2, y + height // 2), f"from {name}", INK, font, anchor="mm")
        draw.rectangle((x + 3, y + 3, x + width - 4, y + height - 4), GIVEN)
    for (source, target), (files, right) in table.items():
        x0 = left + names.index(target) * width + 8
        y0 = top + names.index(source) * height + 8
        for j, (file, ok) in enumerate(zip(files, right, strict=True)):
            x, y = x0 + j % across * size, y0 + j // across * size
            sheet.paste(tile(folder / file, size - 6), (x + 3, y + 3))
            if not ok:
                draw.rectangle((x, y, x + size - 1, y + size - 1), outline=WRONG, width=2)
    return sheet


def cells(samples: dict) -> dict[tuple[str, str], tuple[list[str], list[bool]]]:
    """(source, target) -> files, and whether each was recognised as it should; (x, x): inputs."""
    table = {}
    for row in samples["rows"]:
        given = row["source_files"]
        table.setdefault((row["source"], row["source"]), (given, [True] * len(given)))
        right = [g == r for g, r in zip(row["group"], row["recognised"], strict=True)]
        table[row["source"], row["target"]] = row["files"], right
    return table
