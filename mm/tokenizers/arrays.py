"""Rows of kinds of data that no common file format is known of: NumPy's .npy files."""

import jax
import numpy as np
from etils.epath import Path

from mm.errors import UserError
from mm.tokenizers import files
from mm.tokenizers.files import existing_file


def open_array(path: Path | str) -> np.ndarray:
    """A .npy file -> its array. It is mapped: a header may claim any size, and nothing is read before it is asked for.

    Raises:
      UserError: no such file, or no array.
    """
    path = existing_file(path, "a .npy file, as numpy.save writes it")
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise ValueError("several arrays")
    except (OSError, ValueError, EOFError) as e:
        reason = " ".join(str(e).split())[:120]
        raise UserError(
            f"{path}: not an array that can be read ({reason}); give a .npy file, as numpy.save writes it"
        ) from e
    return found


def read_array(path: Path, row: jax.ShapeDtypeStruct) -> np.ndarray:
    """A .npy file -> a raw row, as it is.

    Raises:
      UserError: see `open_array`; or an array of another shape or dtype, or with values that are no numbers.
    """
    found = open_array(path)
    if (found.shape, found.dtype) != (row.shape, row.dtype):
        raise UserError(
            f"{path}: holds {found.dtype}{list(found.shape)}, a row is {np.dtype(row.dtype)}{list(row.shape)}; "
            "bring it to that form"
        )
    if not np.isfinite(found).all():
        raise UserError(f"{path}: has values that are not numbers; replace them")
    return np.array(found)


def write_array(raw: np.ndarray, stem: Path) -> Path:
    """A raw row -> `stem`.npy; returns its path."""
    path = stem.with_name(stem.name + ".npy")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as f:
        np.save(f, raw, allow_pickle=False)
    return path


def read_picture_or_array(path: Path, row: jax.ShapeDtypeStruct, channels: int) -> np.ndarray:
    """A picture, cut to the form of a row of pixels (uint8), or the .npy array of what is none. Raises UserError: as they do."""
    if row.dtype != np.uint8:
        return read_array(path, row)
    return files.fitted(files.open_picture(path), row.shape[:2], channels)


def write_picture_or_array(raw: np.ndarray, stem: Path) -> Path:
    """A row of pixels (uint8) -> a PNG, any other -> an .npy; returns its path."""
    return (files.write_picture if raw.dtype == np.uint8 else write_array)(raw, stem)
