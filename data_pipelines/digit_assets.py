"""The digits' embedded data: made from the original arrays, checked, and read back.

    python -m data_pipelines.digits --mnist mnist.npz --fsdd fsdd.npz --out data_pipelines/assets

All images of a split are one lossless WebP sheet, all recordings one FLAC stream, labels are
safetensors; `digits.json` lists checksums of the files and of what they decode to. See
assets/NOTICE.md for sources and licences.
"""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mm.errors import UserError

ASSETS = Path(__file__).parent / "assets"
MANIFEST, LABELS, SPEECH = "digits.json", "digits.safetensors", "fsdd.flac"
SHEETS = {"train": "mnist_train.webp", "test": "mnist_test.webp"}
RATE = 8000
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
TEST_TAKES = 5  # FSDD's official split: of each speaker's 50 takes of a digit, 0-4 are test


def write_assets(mnist: Path, fsdd: Path, out: Path) -> dict[str, Any]:
    """Writes all files below `out` and returns the manifest.

    Args:
      mnist: npz of {train,test}_images uint8[n, 28, 28], {train,test}_labels uint8[n].
      fsdd: npz of samples int16[T] at 8 kHz, offsets int32[m + 1], digit, speaker, index uint8[m],
        sorted by index; speaker_names, rate.

    Raises:
      UserError: an input is missing, or is not what this data set is made for.
    """
    images = _arrays(
        mnist, [f"{split}_{what}" for split in SHEETS for what in ("images", "labels")]
    )
    speech = _arrays(
        fsdd, ["samples", "offsets", "digit", "speaker", "index", "speaker_names", "rate"]
    )
    if tuple(speech["speaker_names"]) != SPEAKERS or speech["rate"].item() != RATE:
        raise UserError(
            f"{fsdd}: other speakers or another rate than {SPEAKERS} at {RATE} Hz; "
            "get the file named in NOTICE.md"
        )
    if np.any(np.diff(speech["index"].astype(int)) < 0):
        raise UserError(
            f"{fsdd}: recordings are not sorted by take; get the file named in NOTICE.md"
        )
    out.mkdir(parents=True, exist_ok=True)
    for split, name in SHEETS.items():
        _write_sheet(images[f"{split}_images"], out / name)
    soundfile.write(out / SPEECH, speech["samples"], RATE, subtype="PCM_16", compression_level=1.0)
    labels: dict[str, Any] = {
        f"{split}_labels": images[f"{split}_labels"].astype(np.uint8) for split in SHEETS
    }
    labels |= {key: speech[key].astype(np.uint8) for key in ("digit", "speaker", "index")}
    labels["offsets"] = speech["offsets"].astype(np.int32)
    (out / LABELS).write_bytes(save(labels))
    contents = {f"{split}_images": images[f"{split}_images"] for split in SHEETS}
    contents["samples"] = speech["samples"]
    files = (*SHEETS.values(), SPEECH, LABELS)
    manifest = {
        "files": {
            f: {"bytes": (out / f).stat().st_size, "sha256": _sha256((out / f).read_bytes())}
            for f in files
        },
        "contents": {
            name: {"shape": list(a.shape), "sha256": _sha256(a.tobytes())}
            for name, a in contents.items()
        },
    }
    (out / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    check_contents(out)
    return manifest


def _arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as e:
        raise UserError(f"{path}: not a readable npz ({e}); get the file named in NOTICE.md") from e


def _write_sheet(images: np.ndarray, path: Path) -> None:
    """All images, row by row, in about a square: WebP's sides are limited to 16,383 pixels."""
    n, h, w = images.shape
    columns = next(c for c in range(int(n**0.5), 0, -1) if n % c == 0)
    sheet = (
        images.reshape(n // columns, columns, h, w)
        .swapaxes(1, 2)
        .reshape(n // columns * h, columns * w)
    )
    Image.fromarray(sheet).convert("RGB").save(path, "WEBP", lossless=True, method=4, quality=75)


def check_contents(folder: Path) -> None:
    """Decodes everything and compares it with the original arrays' checksums.

    Raises:
      UserError: something does not decode to what it was made from.
    """
    manifest = read_manifest(folder)
    decoded = {f"{split}_images": read_images(folder, split) for split in SHEETS} | {
        "samples": read_samples(folder)
    }
    for name, array in decoded.items():
        if _sha256(array.tobytes()) != manifest["contents"][name]["sha256"]:
            raise UserError(
                f"{folder}: {name} does not decode to the original; make the assets anew"
            )


def read_manifest(folder: Path) -> dict[str, Any]:
    """What `digits.json` says.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        return json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as e:
        raise UserError(
            f"{folder / MANIFEST}: cannot be read ({e}); restore it from the repository"
        ) from e


def manifest_hash(folder: Path) -> str:
    """8 hex digits that change with any file of the assets; names what is built of them."""
    return _sha256(json.dumps(read_manifest(folder), sort_keys=True).encode())[:8]


def _checked(folder: Path, name: str) -> bytes:
    """A file's bytes.

    Raises:
      UserError: it is missing, or other bytes than the manifest's.
    """
    listed = read_manifest(folder)["files"][name]
    try:
        data = (folder / name).read_bytes()
    except OSError as e:
        reason = os.strerror(e.errno or 0)
        raise UserError(
            f"{folder / name}: cannot be read ({reason}); restore it from the repository"
        ) from e
    if len(data) != listed["bytes"] or _sha256(data) != listed["sha256"]:
        raise UserError(
            f"{folder / name}: damaged ({len(data):,} bytes; in {MANIFEST} {listed['bytes']:,} and "
            "another checksum); restore it from the repository"
        )
    return data


def read_images(folder: Path, split: str) -> np.ndarray:
    """All images of `train` or `test`, in their original order: uint8[n, 28, 28], 0 = background.

    Raises:
      UserError: see `_checked`.
    """
    n, h, w = read_manifest(folder)["contents"][f"{split}_images"]["shape"]
    colours = Image.open(io.BytesIO(_checked(folder, SHEETS[split])))  # WebP has no grey
    sheet = np.asarray(colours.getchannel("R"))
    columns = sheet.shape[1] // w
    tiles = sheet.reshape(n // columns, h, columns, w).swapaxes(1, 2)
    return np.ascontiguousarray(tiles).reshape(n, h, w)


def read_samples(folder: Path) -> np.ndarray:
    """All recordings end to end: int16[T] at 8 kHz.

    Raises:
      UserError: see `_checked`.
    """
    return soundfile.read(io.BytesIO(_checked(folder, SPEECH)), dtype="int16")[0]


def read_labels(folder: Path) -> dict[str, np.ndarray]:
    """Labels of images and recordings, by name.

    Returns:
      train_labels, test_labels uint8[n]; of the recordings digit, speaker, index (take) uint8[m],
      offsets int32[m + 1].

    Raises:
      UserError: see `_checked`.
    """
    try:
        return load(_checked(folder, LABELS))
    except SafetensorError as e:
        raise UserError(
            f"{folder / LABELS}: not safetensors ({e}); restore it from the repository"
        ) from e


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
