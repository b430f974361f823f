"""Reads a run's folder for a page: what is missing or damaged is empty, so that a page shows what there is."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

Curves = dict[str, list[tuple[int, float]]]
"""(step, value) by the name it was logged under; only finite values."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunFiles:
    """What a run has written.

    Attributes:
      config: config.json: the experiment, and what was changed on the command line.
      results: results.json, empty before the run is finished.
      curves: metrics.jsonl.
    """

    folder: Path
    config: dict[str, Any]
    results: dict[str, Any]
    curves: Curves

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
    folder = Path(folder)
    settings, results = (read_object(folder / n) for n in ("config.json", "results.json"))
    return RunFiles(folder, settings, results, read_curves(folder / "metrics.jsonl"))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object, or {} where there is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def read_curves(path: Path) -> Curves:
    """The logged values; the last line of a killed run may be cut and is left out."""
    curves: Curves = {}
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    for line in lines:
        try:
            values = dict(json.loads(line))
            step = int(values.pop("step"))
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in values.items():
            if isinstance(value, (int, float)) and math.isfinite(value):
                curves.setdefault(name, []).append((step, float(value)))
    return curves
