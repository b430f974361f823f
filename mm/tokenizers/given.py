"""Modalities that have no tokenizer here: rows that are tokens already, and pictures that a model reads as pixels.

A model of 4M's is read from its weights alone; its tokenizers are files of their own.
"""

from typing import Any

import numpy as np
from einops import rearrange
from etils.epath import Path

from mm.errors import UserError
from mm.space import Dense, Modality
from mm.tokenizers.arrays import open_array, write_array
from mm.tokenizers.files import fitted, open_picture

MEAN, STD = (np.array(x, np.float32) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
"""Of ImageNet's pixels in [0, 1]."""


class Given:
    """Rows are ids (of what is dense, values). See `mm.tokenizers.Tokenizer`."""

    def __init__(self, modality: Modality):
        self.modality, self.fingerprint = modality, "given"
        self.card: dict[str, Any] = {}
        self.vectors: np.ndarray | None = None

    def encode(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """ids [n, up to size], or (ids, length int[n]); of what is dense values float[n, up to size, features], likewise.

        Raises:
          UserError: another shape, an id outside the vocabulary, or a value that is no number.
        """
        m = self.modality
        rows, length = raw if isinstance(raw, tuple) else (raw, None)
        rows = np.asarray(rows)
        width = m.layout.shape[1:] if isinstance(m.layout, Dense) else ()
        if rows.ndim != 2 + len(width) or rows.shape[1] > m.size or rows.shape[2:] != width:
            form = ", ".join(map(str, ("n", f"up to {m.size}", *width)))
            raise UserError(f"{m.name}: got {list(rows.shape)}; give [{form}], or (that, length)")
        length = np.full(len(rows), rows.shape[1]) if length is None else np.asarray(length)
        if m.vocabulary is None:
            wrong = "a value that is no number" if not np.isfinite(rows).all() else ""
        else:
            wrong = f"ids outside 0 .. {m.vocabulary.size - 1}" if not _within(rows, m.vocabulary.size) else ""  # fmt: skip
        if wrong:
            raise UserError(f"{m.name}: {wrong}; give its own tokens")
        out = np.zeros((len(rows), m.size, *width), np.float32 if width else np.int32)
        out[:, : rows.shape[1]] = rows
        return out, length.astype(np.int32)

    def decode(self, ids: np.ndarray, length: np.ndarray | None = None) -> np.ndarray:
        """As they are, int32[n, size]."""
        return ids

    def read_file(self, path: Path | str) -> np.ndarray:
        """A .npy file of one row. Raises UserError: see `open_array`."""
        return np.array(open_array(path))

    def write_file(self, raw: np.ndarray, stem: Path) -> Path:
        """One row -> `stem`.npy."""
        return write_array(np.asarray(raw), stem)


def _within(ids: np.ndarray, size: int) -> bool:
    return np.issubdtype(ids.dtype, np.integer) and bool(((ids >= 0) & (ids < size)).all())


class Pixels(Given):
    """Pictures, uint8[n, H, W, 3], as patches of normalised pixels (rows first, then columns, then colours).

    Attributes:
      shape: (H, W).
    """

    def __init__(self, modality: Modality):
        """Raises UserError: its patches are not square and of three colours."""
        super().__init__(modality)
        layout = modality.layout
        assert isinstance(layout, Dense) and layout.grid
        side = round((layout.shape[1] / 3) ** 0.5)
        if 3 * side**2 != layout.shape[1]:
            raise UserError(
                f"{modality.name}: {layout.shape[1]} values a patch are no square of RGB"
            )
        self.side, self.shape = side, (side * layout.grid[0], side * layout.grid[1])

    def encode(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """uint8[n, H, W, 3] -> patches float32[n, size, 3 side^2]. Raises UserError: another shape or dtype."""
        raw = np.asarray(raw)
        if raw.dtype != np.uint8 or raw.shape[1:] != (*self.shape, 3):
            h, w = self.shape
            raise UserError(
                f"{self.modality.name}: got {raw.dtype}{list(raw.shape)}; give uint8[n, {h}, {w}, 3]"
            )
        scaled = (raw / np.float32(255) - MEAN) / STD
        patches = rearrange(scaled, "b (h p) (w q) c -> b (h w) (p q c)", p=self.side, q=self.side)
        return super().encode(patches)

    def read_file(self, path: Path | str) -> np.ndarray:
        """Any picture file, scaled to cover H x W, the middle cut out. Raises UserError: see `open_picture`."""
        return fitted(open_picture(Path(path)), self.shape, 3)


def given(m: Modality) -> Given:
    """What takes a modality's rows as they are: pictures where they lie in a grid of pixels."""
    return Pixels(m) if isinstance(m.layout, Dense) and m.layout.grid else Given(m)
