"""Paths on any file system: `etils.epath` knows gs:// and others; what needs a disk of this machine gets one here."""

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator

from etils.epath import Path

from mm import progress

CACHE = "MM_CACHE"
"""The environment variable that names the folder for caches of runs that lie elsewhere."""


def is_local(path: Path | str) -> bool:
    """Whether a path is on a disk of this machine."""
    return "://" not in os.fspath(path)


@contextlib.contextmanager
def as_local(path: Path | str) -> Iterator[Path]:
    """A file as one on this machine: itself, or a copy for as long as the block lasts."""
    path = Path(path)
    if is_local(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield path.copy(Path(folder) / path.name)


def cache_of(folder: Path) -> Path:
    """Where a run builds, tokenizes and compiles: in its own folder, or, if that lies elsewhere, on this machine.

    There it is below $MM_CACHE, or ~/.cache/mm, by the folder's name.
    """
    if is_local(folder):
        return folder / "cache"
    mark = hashlib.sha256(os.fspath(folder).encode()).hexdigest()[:8]
    base = Path(os.environ.get(CACHE) or "~/.cache/mm").expanduser()
    return base / f"{folder.name}-{mark}"


def copied(folder: Path, near: Path) -> Path:
    """A folder as one on this machine: itself, or a copy at `near`, made once, all or nothing."""
    if is_local(folder):
        return folder
    if not near.exists():
        partial = near.with_name(near.name + ".partial")
        partial.rmtree(missing_ok=True)
        files = [path / name for path, _, names in folder.walk() for name in names]
        for file in progress.track(files, f"copying {os.fspath(folder)}"):
            target = partial / file.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.copy(target)
        partial.rename(near)
    return near
