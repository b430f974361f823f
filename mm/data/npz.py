"""Small data sets that are one .npz file of NumPy arrays."""

import dataclasses
import hashlib
import io
import zipfile
from typing import Any

import numpy as np
from etils.epath import Path

from mm.data.aligned import AlignedSource
from mm.data.records import CorruptLog
from mm.errors import UserError
from mm.tokenizers.files import existing_file


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class NpzSource(AlignedSource):
    """Base of sources of one file: they name it, and say what its arrays mean. See `mm.data.Source`.

    Attributes:
      path: the file. sha256: of the file, in hex (what `sha256sum FILE` says).
      modalities: which of its columns there are.
    """

    path: str
    sha256: str
    modalities: tuple[str, ...]

    def examples(self, found: dict[str, np.ndarray]) -> tuple[dict[str, Any], Any, Any]:
        """All arrays of the file -> rows, group and split of its examples, see `AlignedSource.hold`."""
        raise NotImplementedError

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Reads all of it. Raises UserError: see `read_npz` and `AlignedSource.hold`."""
        rows, group, split = self.examples(read_npz(self.path, self.sha256))
        self.hold(rows, group=group, split=split)


def read_npz(path: Path | str, sha256: str) -> dict[str, np.ndarray]:
    """All arrays of a file, which must be the one that is meant.

    Args:
      sha256: of the file, in hex.

    Raises:
      UserError: no such file, another one, or one that holds no arrays.
    """
    contents = existing_file(path, "the whole one").read_bytes()
    found = hashlib.sha256(contents).hexdigest()
    if found != sha256:
        raise UserError(
            f"{path}: its sha256 is {found}, its data pipeline names {sha256!r}; get the file that is "
            "meant, or name this one's there"
        )
    try:
        with np.load(io.BytesIO(contents), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, TypeError, zipfile.BadZipFile) as e:
        raise UserError(
            f"{path}: not a .npz of plain arrays ({e}); write it with numpy.savez"
        ) from e
