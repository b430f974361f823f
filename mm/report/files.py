"""Reads a run's folder for a page: what is missing or damaged is empty, and said, so that a page shows what there is."""

import dataclasses
import json
import math
from typing import Any

from etils.epath import Path

from mm import workdir
from mm.errors import Newer

Curves = dict[str, list[tuple[int, float]]]
"""(step, value) by the name it was logged under; only finite values."""


class Damaged(Exception):
    """A file is there but cannot be read; says which and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run has written.

    Attributes:
      config: config.json: the experiment, and what was changed on the command line.
      results: results.json, empty before the run is finished.
      curves: metrics.jsonl.
      damaged: what is wrong with which of these files.
      newer: the names of those that a newer mm wrote.
    """

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    curves: Curves
    damaged: dict[str, str] = dataclasses.field(default_factory=dict)
    newer: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved experiment."""
        found = self.config.get("experiment")
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> str:
        return str(self.settings.get("name", self.folder.name))

    @property
    def train(self) -> dict[str, Any]:
        """Figures of the training itself."""
        return self.of("train")

    @property
    def step(self) -> int:
        """The last one that was logged; 0 = none."""
        return max((points[-1][0] for points in self.curves.values()), default=0)

    def of(self, name: str) -> dict[str, Any]:
        """An evaluator's results, {} where it has none."""
        found = self.results.get(name)
        return found if isinstance(found, dict) else {}


def read_run(folder: Path) -> RunFiles:
    """Everything of a run that is small."""
    folder, damaged, newer = Path(folder), {}, []
    found: dict[str, dict[str, Any]] = {}
    for name in ("config.json", "results.json"):
        try:
            found[name] = read_object(folder / name)
        except (Damaged, Newer) as e:
            found[name], damaged[name] = {}, str(e)
            newer += [name] if isinstance(e, Newer) else []
    curves, wrong = read_curves(folder / "metrics.jsonl")
    if wrong:
        damaged["metrics.jsonl"] = wrong
    read = (found["config.json"], found["results.json"])
    return RunFiles(folder, *read, curves, damaged, tuple(newer))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where there is no such file.

    Raises:
      Damaged: it is no JSON object, or may not be read.
      Newer: a newer mm wrote it.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as e:
        raise Damaged(f"{path.name} cannot be read: it is cut or damaged ({e})") from e
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} cannot be read: it holds a {type(value).__name__}, no object")
    return workdir.without_version(path, value)


def read_curves(path: Path) -> tuple[Curves, str]:
    """The logged values, and what is wrong: lines that cannot be read, as the last one of a killed run, are left out."""
    curves: Curves = {}
    try:
        lines = path.read_bytes().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return {}, ""
    except OSError as e:
        return {}, f"{path.name} cannot be read ({e.strerror})"
    wrong = []
    for number, line in enumerate(lines, 1):
        try:
            values = dict(json.loads(line))
            step = int(values.pop("step"))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            wrong.append(number)
            continue
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                curves.setdefault(name, []).append((step, float(value)))
    said = f"{path.name}: {len(wrong)} of {len(lines)} lines cannot be read" if wrong else ""
    return curves, said and f"{said} (the first is line {wrong[0]}) and are left out"
