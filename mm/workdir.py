"""A run's folder: what lies where, whose it is, and how it is read back.

config.json    the resolved experiment, enough to rebuild it, its fingerprint; its file, and what was changed
tokenizers/    copies of the artefacts it uses, so that the folder can be moved
checkpoints/   Orbax            cache/   built data, tokens, compiled programs
metrics.jsonl  tensorboard/     results.json  report/  artefact/
samples/       evals/           what evaluators keep to be looked at, each below its name
running        who is at work here, while it lasts

Each JSON file says its format, and config.json's is that of metrics.jsonl too. Older ones are read for ever
(tests/fixtures/format1.zip); newer ones are refused.
"""

import contextlib
import fcntl
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from etils.epath import Path

import mm
from mm import config
from mm.errors import Newer, UserError, refuse_newer
from mm.paths import is_local

FORMAT_VERSION = 1
"""Of the JSON that mm writes."""
RUNNING = "running"


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes all or nothing."""
    named = {"format_version": FORMAT_VERSION, **value}
    write_text(path, json.dumps(named, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` was given.

    Raises:
      UserError: a file that is not there, is no JSON object, or was written by a newer mm.
    """
    try:
        value = json.loads(path.read_text())
        if not isinstance(value, dict):
            raise ValueError("no object")
    except FileNotFoundError as e:
        raise UserError(
            f"{path}: no such file; is this the --workdir of a run that was started?"
        ) from e
    except ValueError as e:  # bytes that are no UTF-8, or no JSON, or another sort of JSON
        raise UserError(
            f"{path}: not readable as JSON ({e}); the folder is damaged, use another --workdir"
        ) from e
    return without_version(path, value)


def without_version(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """What was read of `path`, its format checked (1 where it says none) and taken off. Raises Newer."""
    refuse_newer(path, value.get("format_version", 1), FORMAT_VERSION)
    return {k: v for k, v in value.items() if k != "format_version"}


def results(folder: Path) -> dict[str, Any]:
    """A run's results.json; {} where there is none, or it is damaged: an evaluation writes it anew. Raises Newer."""
    try:
        found = read_json(folder / "results.json")
    except Newer:
        raise
    except UserError:
        return {}
    return found if isinstance(found.get("train"), dict) else {}


def claim(folder: Path, exp: config.Experiment, origin: config.Origin | None = None) -> None:
    """Makes `folder` the home of `exp`, or checks that it already is.

    Args:
      origin: where `exp` comes from, for the reader of the report.

    Raises:
      UserError: the folder belongs to another experiment, holds something else, or cannot be written; or
        the experiment has a part that could not be found again.
    """
    with _written(folder):
        check_free(folder)
        _claim(folder, exp, origin)


def _claim(folder: Path, exp: config.Experiment, origin: config.Origin | None) -> None:
    saved, mark = config.to_json(exp), config.fingerprint(exp)
    config.check_parts(saved)
    found = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    if found.get("fingerprint") == mark or (found and _same(found.get("experiment"), mark)):
        return
    if found and _begun(folder):
        field = _first_difference(found.get("experiment", {}), saved)
        raise UserError(
            f"{folder}: holds the run of another experiment ({field}); use another --workdir"
        )
    if (
        not found
        and folder.exists()
        and (not folder.is_dir() or any(p.name != "cache" for p in folder.iterdir()))
    ):
        raise UserError(f"{folder}: exists and is not a run's folder; use another --workdir")
    if exp.init:
        from mm import initial  # 3 s, with JAX

        initial.check(exp)
    sources = {n: Path(ref.partition("#")[0]) for n, ref in exp.data.tokenizers.items()}
    for name, source in sources.items():  # all before the first is copied
        if not source.is_file():
            raise UserError(
                f"{source}: no such file (config.data.tokenizers[{name!r}]); run from the checkout, or mend the path"
            )
    (folder / "tokenizers").mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        source.copy(folder / "tokenizers" / f"{name}.safetensors", overwrite=True)
    known = {"version": mm.__version__, "fingerprint": mark, "experiment": saved}
    if origin:
        known |= {"file": origin.file, "changed": origin.changed}
    write_json(folder / "config.json", known)


@contextlib.contextmanager
def held(folder: Path, flag: str = "--workdir") -> Iterator[None]:
    """Nobody else works in `folder` for as long as it lasts. Says so where the last one ended without farewell.

    Args:
      flag: by which another folder is named, for messages.

    Only a folder on this machine can be locked; elsewhere a run that is under way looks like one that ended so.

    Raises:
      UserError: somebody does, or nothing can be written there.
    """
    mark = folder / RUNNING
    with contextlib.ExitStack() as stack:
        with _written(folder, flag):
            folder.mkdir(parents=True, exist_ok=True)
            check_free(folder, flag)
            if is_local(folder):
                _lock(stack.enter_context(open(mark, "a+")), folder, flag)
            before = mark.read_text().strip() if mark.exists() else ""
            began = time.strftime("%Y-%m-%d %H:%M:%S")
            mark.write_text(f"process {os.getpid()} on {platform.node()} since {began}\n")
        if before:
            print(f"the last run in {folder} ended without farewell ({before})", flush=True)
        try:
            yield
        finally:
            mark.unlink(missing_ok=True)


@contextlib.contextmanager
def _written(folder: Path, flag: str = "--workdir") -> Iterator[None]:
    """Raises UserError where the file system does not let us."""
    try:
        yield
    except OSError as e:
        raise UserError(
            f"{e.filename or folder}: cannot be written ({e.strerror or e}); use another {flag}"
        ) from e


def check_free(folder: Path, flag: str = "--workdir") -> None:
    """Raises UserError where somebody works in `folder`."""
    if is_local(folder) and (folder / RUNNING).is_file():
        with contextlib.suppress(OSError), open(folder / RUNNING, "r+") as file:
            _lock(file, folder, flag)


def _lock(file: TextIO, folder: Path, flag: str) -> None:
    """For as long as the file is open; a killed process lets go too."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        file.seek(0)
        raise UserError(
            f"{folder}: in use by another run ({file.read().strip()}); wait for it, or use another {flag}"
        ) from e


@contextlib.contextmanager
def tidied(folder: Path) -> Iterator[None]:
    """Takes away what a start that is refused behind its claim has written; what was built or tokenized stays."""
    mark, here = folder / "config.json", folder.exists()
    claimed = mark.exists()
    try:
        yield
    except UserError:
        # Without a mark of this very start nothing in the folder is ours.
        if mark.exists() and not claimed and not _begun(folder):
            mark.unlink()
            (folder / "tokenizers").rmtree()
            for empty in (folder / "checkpoints", *([] if here else [folder])):
                with contextlib.suppress(OSError, ValueError):  # not there, or not empty
                    empty.rmdir()
        raise


def experiment(folder: Path, *, whole: bool = False) -> config.Experiment:
    """The experiment whose run lives in `folder`, its tokenizers pointing at the folder's own copies.

    Args:
      whole: all of its parts are needed, and not only the model: data and evaluators too.

    Raises:
      UserError: no run is there, or a part that is needed is not.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --workdir names the folder of a run")
    saved = read_json(folder / "config.json")["experiment"]
    try:
        if whole:
            config.check_parts(saved)
        exp = config.from_json(saved)
    except UserError as e:
        raise UserError(f"{folder}: its experiment has a part that is not found: {e}") from e
    for name in exp.data.tokenizers:
        exp.data.tokenizers[name] = str(folder / "tokenizers" / f"{name}.safetensors")
    return exp


def _same(saved: Any, mark: str) -> bool:
    """Whether a saved experiment has the fingerprint `mark`; fields younger than it have their defaults."""
    try:
        return config.fingerprint(config.from_json(saved)) == mark
    # from fields or parts that are no more, or a damaged file
    except (TypeError, AttributeError, KeyError, UserError):
        return False


def _begun(folder: Path) -> bool:
    """Whether there is anything to lose: a start that failed before its first step leaves nothing."""
    results = (folder / name for name in ("results.json", "metrics.jsonl"))
    return any(p.exists() for p in results) or any((folder / "checkpoints").glob("[0-9]*"))


def _first_difference(old: Any, new: Any) -> str:
    for path, (there, now) in config.differences(old, new).items():
        return f"config.{path}: {str(there)[:60]} there, {str(now)[:60]} now"
    return "config.json is damaged"
