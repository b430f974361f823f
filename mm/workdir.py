"""A run's folder: what lies where, whose it is, and how it is read back.

config.json    the resolved experiment, enough to rebuild it, its fingerprint; its file, and what was changed
tokenizers/    copies of the artefacts it uses, so that the folder can be moved
checkpoints/   Orbax            cache/   built data, tokens, compiled programs
metrics.jsonl  tensorboard/     results.json  report/  artefact/
samples/       evals/           what evaluators keep to be looked at, each below its name
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import mm
from mm import config
from mm.errors import UserError


def write_json(path: Path, value: Any) -> None:
    """Writes all or nothing."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def read_json(path: Path) -> Any:
    """Raises UserError for a file that is not there or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as e:
        raise UserError(
            f"{path}: no such file; is this the --workdir of a run that was started?"
        ) from e
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise UserError(
            f"{path}: not readable as JSON ({e}); the folder is damaged, use another --workdir"
        ) from e


def claim(folder: Path, exp: config.Experiment, origin: config.Origin | None = None) -> None:
    """Makes `folder` the home of `exp`, or checks that it already is.

    Args:
      origin: where `exp` comes from, for the reader of the report.

    Raises:
      UserError: the folder belongs to another experiment, holds something else, or cannot be written.
    """
    mark = config.fingerprint(exp)
    found = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    if found.get("fingerprint") == mark or (found and _same(found.get("experiment"), mark)):
        return
    if found and _begun(folder):
        field = _first_difference(found.get("experiment", {}), config.to_json(exp))
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
    try:
        (folder / "tokenizers").mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"{folder}: cannot be written ({e.strerror}); use another --workdir") from e
    for name, reference in exp.data.tokenizers.items():
        source = Path(reference.partition("#")[0])
        if not source.is_file():
            raise UserError(
                f"{source}: no such file (config.data.tokenizers[{name!r}]); run from the checkout, or mend the path"
            )
        shutil.copyfile(source, folder / "tokenizers" / f"{name}.safetensors")
    known = {"version": mm.__version__, "fingerprint": mark, "experiment": config.to_json(exp)}
    if origin:
        known |= {"file": origin.file, "changed": origin.changed}
    write_json(folder / "config.json", known)


def experiment(folder: Path) -> config.Experiment:
    """The experiment whose run lives in `folder`, its tokenizers pointing at the folder's own copies.

    Raises:
      UserError: no run is there.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --workdir names the folder of a run")
    exp = config.from_json(read_json(folder / "config.json")["experiment"])
    for name in exp.data.tokenizers:
        exp.data.tokenizers[name] = str(folder / "tokenizers" / f"{name}.safetensors")
    return exp


def _same(saved: Any, mark: str) -> bool:
    """Whether a saved experiment has the fingerprint `mark`; fields younger than it have their defaults."""
    try:
        return config.fingerprint(config.from_json(saved)) == mark
    except (TypeError, AttributeError, KeyError):  # from fields that are no more, or a damaged file
        return False


def _begun(folder: Path) -> bool:
    """Whether there is anything to lose: a start that failed before its first step leaves nothing."""
    results = (folder / name for name in ("results.json", "metrics.jsonl"))
    return any(p.exists() for p in results) or any((folder / "checkpoints").glob("[0-9]*"))


def _first_difference(old: Any, new: Any) -> str:
    for path, (there, now) in config.differences(old, new).items():
        return f"config.{path}: {str(there)[:60]} there, {str(now)[:60]} now"
    return "config.json is damaged"
def whole_experiment(folder: Path) -> config.Experiment:
    """As `experiment`, to be trained or evaluated: with its data.

    Raises:
      UserError: as `experiment`, or a part's module is not here, as a recipe's where only the wheel is.
    """
    exp = experiment(folder)
    saved = read_json(folder / "config.json")["experiment"]
    parts = [(saved["task"], exp.task), (saved["data"]["source"], exp.data.source)]
    for named, part in (*parts, *zip(saved["evals"], exp.evals, strict=True)):
        if part is None:
            raise UserError(
                f"{folder}: needs {named['type'].replace(':', '.')}, which is not found here; run from its checkout"
            )
    return exp


