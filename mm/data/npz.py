"""Small data sets that are one .npz file of NumPy arrays."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np

from mm.errors import UserError
from mm.tokenizers.files import existing_file


def read_npz(path: Path | str, sha256: str) -> dict[str, np.ndarray]:
    """All arrays of a file, which must be the one that is meant.

    Args:
      sha256: of the file, in hex (what `sha256sum FILE` says).

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
