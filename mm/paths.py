"""Paths on any file system: `etils.epath` knows gs:// and others; what needs a disk of this machine gets one here."""

import contextlib
import hashlib
import os
import platform
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
    return home_cache() / f"{folder.name}-{_mark(os.fspath(folder))}"


def home_cache() -> Path:
    """What belongs to no run of this machine: $MM_CACHE, or ~/.cache/mm."""
    return Path(os.environ.get(CACHE) or "~/.cache/mm").expanduser()


def keep_programs(cache: Path) -> None:
    """Programs that XLA compiles are kept below `cache` for the next start, or where JAX_COMPILATION_CACHE_DIR says.

    Each kind of processor has its own folder: XLA would run another one's program, and die of an unknown instruction.
    """
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        folder = Path(cache) / "xla" / _mark(_processor())
        jax.config.update("jax_compilation_cache_dir", os.fspath(folder.absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        return next((line for line in file if line.startswith(("flags", "Features"))), "")
    return platform.processor()


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


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
