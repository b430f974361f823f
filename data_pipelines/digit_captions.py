"""What a caption of a handwritten digit says, measured from the picture: stroke, slant and size.

    a small thin seven, leaning right

Each fact is one of three words, and the middle one is left unsaid ("a plain seven" where both of
thickness and size are). The limits between them are the
terciles of the training images, so each word fits a third of them; `python -m
data_pipelines.digit_captions --mnist FILE` fits them anew. The facts are measured on a smoothed
picture: a tokenizer that blurs a little keeps most of them.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from mm.data.columns import digest

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
FACTS = {
    "thickness": ("thin", "medium", "thick"),
    "slant": ("leaning left", "upright", "leaning right"),
    "size": ("small", "medium", "large"),
}
"""Per fact its three values, from the lowest measure to the highest; the middle is left unsaid."""

LIMITS = {
    "thickness": (2.2674, 2.8468),
    "slant": (-0.0145, 0.2184),
    "size": (6.3491, 7.0344),
}
"""Terciles over the training images: stroke and radius in pixels, tangent of the slant's angle."""

CAPTIONS_VERSION = 2
"""Part of the texts' fingerprints: raise it when a change below changes what is written."""

SIDE = 28
SMOOTHING = 0.6  # sigma in pixels; with it, facts survive a lossy tokenizer best of 0, 0.4, 0.6


def _smoothing() -> np.ndarray:
    """float32[28, 28] that smooths a column by a Gaussian; zeros lie beyond the border."""
    offset = np.arange(SIDE)[:, None] - np.arange(SIDE)
    kernel = np.exp(-0.5 * (offset / SMOOTHING) ** 2) * (np.abs(offset) <= 2)
    return (kernel / kernel[SIDE // 2].sum()).astype(np.float32)


def _doubling() -> np.ndarray:
    """float32[58, 28] that interpolates a column to twice the resolution, a zero at either end."""
    at = (np.arange(2 * SIDE) - 0.5) / 2
    weights = np.maximum(1 - np.abs(at[:, None] - np.arange(SIDE)), 0)
    return np.pad(weights, ((1, 1), (0, 0))).astype(np.float32)


_SMOOTH = _smoothing()
_SMOOTH_DOUBLE = _doubling() @ _SMOOTH


def stroke_thickness(images: np.ndarray) -> np.ndarray:
    """Mean width of the strokes in pixels: 2 area / perimeter, as of a long stroke of equal width.

    The perimeter is Crofton's: how often lines in four directions cross the outline of what is more
    than half ink, at twice the resolution.

    Args:
      images: float32[n, 28, 28] in [0, 1].

    Returns:
      float32[n]; 0 for a blank image.

    Source: Legland, Kieu and Devaux 2007, Computation of Minkowski measures on 2D and 3D images.
    """
    ink = _SMOOTH_DOUBLE @ images @ _SMOOTH_DOUBLE.T > 0.5
    straight = _count(ink[:, 1:] ^ ink[:, :-1]) + _count(ink[:, :, 1:] ^ ink[:, :, :-1])
    diagonal = _count(ink[:, 1:, 1:] ^ ink[:, :-1, :-1]) + _count(ink[:, 1:, :-1] ^ ink[:, :-1, 1:])
    perimeter = np.pi / 8 * (straight + diagonal / np.sqrt(2))
    return (_count(ink) / np.maximum(perimeter, 1)).astype(np.float32)


def _count(mask: np.ndarray) -> np.ndarray:
    return np.count_nonzero(mask, axis=(1, 2))


def slant_and_radius(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slant and size from second moments: -mu11 / mu02, and sqrt(mu20 + mu02).

    Args:
      images: float32[n, 28, 28] in [0, 1].

    Returns:
      slant float32[n], tangent of the angle to the vertical, positive where the top is to the
      right; radius of gyration float32[n] in pixels. Both 0 for a blank image.
    """
    smooth = _SMOOTH @ images @ _SMOOTH.T
    ink = np.clip(2 * smooth - 0.3, 0, 1)  # traces below 0.15 weigh nothing, from 0.65 on all
    at = np.arange(SIDE, dtype=np.float32)
    mass = np.maximum(ink.sum((1, 2)), 1e-6)
    columns, rows = ink.sum(1), ink.sum(2)
    x, y = columns @ at / mass, rows @ at / mass
    mu20 = columns @ (at * at) / mass - x * x
    mu02 = rows @ (at * at) / mass - y * y
    mu11 = (ink @ at) @ at / mass - x * y
    slant = np.where(mu02 > 1e-6, -mu11 / np.maximum(mu02, 1e-6), 0)
    return slant.astype(np.float32), np.sqrt(np.maximum(mu20 + mu02, 0)).astype(np.float32)


def measure(images: np.ndarray, chunk: int = 1024) -> np.ndarray:
    """Thickness, slant, size: uint8[n, 28, 28], light ink on dark -> float32[n, 3]."""
    found = np.empty((len(images), len(FACTS)), np.float32)
    for start in range(0, len(images), chunk):
        part = images[start : start + chunk].astype(np.float32) / 255
        slant, radius = slant_and_radius(part)
        found[start : start + chunk] = np.stack([stroke_thickness(part), slant, radius], -1)
    return found


def fact_codes(images: np.ndarray) -> np.ndarray:
    """Which of its three `FACTS` each image has: uint8[n, 28, 28] -> int8[n, 3] in 0..2."""
    limits = np.array([LIMITS[fact] for fact in FACTS], np.float32)
    return (measure(images)[:, :, None] > limits).sum(-1).astype(np.int8)


def measure_facts(image: np.ndarray) -> dict[str, str]:
    """What a caption of this image would say: uint8[28, 28] -> {fact: one of its `FACTS`}."""
    return name_facts(fact_codes(np.asarray(image)[None])[0])


def name_facts(codes: np.ndarray) -> dict[str, str]:
    """Codes int[3] of one image as words: {fact: one of its `FACTS`}."""
    return {fact: values[code] for code, (fact, values) in zip(codes, FACTS.items(), strict=True)}


def caption(digit: int, facts: dict[str, str]) -> str:
    """The sentence for a digit with facts; at most seven words and commas. Every one begins with "a"."""
    said = {fact: value for fact, value in facts.items() if value != FACTS[fact][1]}
    adjectives = [said[fact] for fact in ("size", "thickness") if fact in said] or ["plain"]
    noun = " ".join(["a", *adjectives, DIGIT_WORDS[digit]])
    return noun + (f", {said['slant']}" if "slant" in said else "")


def read_digit(text: str) -> int | None:
    """The first digit word in a text, as a number; None where there is none."""
    words = re.findall(r"[a-z]+", text.lower())
    return next((DIGIT_WORDS.index(word) for word in words if word in DIGIT_WORDS), None)


def read_facts(text: str) -> dict[str, str]:
    """What a caption says of each fact; what it leaves unsaid is the middle value.

    The first word counts where a text contradicts itself. A bare word reads as all middle: only
    captions are to be compared.
    """
    words = " ".join(re.findall(r"[a-z]+", text.lower()))
    found = {}
    for fact, values in FACTS.items():
        match = re.search(rf"\b({values[0]}|{values[2]})\b", words)
        found[fact] = match[1] if match else values[1]
    return found


class Texts:
    """Column of texts, two rows per image: 2 i is its digit's word, 2 i + 1 its caption."""

    def __init__(self, images: Any, digit: np.ndarray):
        """
        Args:
          images: uint8[n, 28, 28], or a column of such rows. digit: int[n].
        """
        self.images, self.digit = images, digit
        shown = getattr(images, "fingerprint", images)
        self.fingerprint = digest(shown, digit, json.dumps([CAPTIONS_VERSION, FACTS, LIMITS]))

    def __len__(self) -> int:
        return 2 * len(self.images)

    def __getitem__(self, rows: np.ndarray) -> list[str]:
        image, is_caption = np.divmod(np.asarray(rows, np.int64), 2)
        captioned = np.flatnonzero(is_caption)
        texts = [DIGIT_WORDS[digit] for digit in self.digit[image]]
        for row, codes in zip(captioned, fact_codes(self.images[image[captioned]]), strict=True):
            texts[row] = caption(int(self.digit[image[row]]), name_facts(codes))
        return texts


def main() -> None:
    """Fits the limits on the training images and prints them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mnist", type=Path, required=True, help="npz with train_images")
    images = np.load(parser.parse_args().mnist)["train_images"][:-5000]  # the rest is validation
    for fact, values in zip(FACTS, measure(images).T, strict=True):
        print(f'"{fact}": ({", ".join(f"{q:.4f}" for q in np.quantile(values, [1 / 3, 2 / 3]))}),')


if __name__ == "__main__":
    main()
