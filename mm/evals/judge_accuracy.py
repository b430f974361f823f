"""How often a judge is right on real rows that it did not learn from."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm.evals.samples import emptied
from mm.tasks import Run
from mm.tasks.judge import labelled


@dataclasses.dataclass(kw_only=True, slots=True)
class JudgeAccuracy:
    """Share of rows that it gets right.

    Attributes:
      split: `validation` while choices are made; `test` once, at the end.
    """

    name: str = "judge"
    when: str = "interval"
    split: str = "validation"

    def run(self, run: Run) -> Iterator[tuple[str, Any]]:
        """Yields (`accuracy`, share), (`rows`, how many); counts of what is taken for what stay in
        evals/<name>/confusion.json."""
        rows, labels = labelled(run.data, run.task.settings.column, self.split)
        found = run.task.judge(run.params).predict(rows)
        counts = np.zeros((run.task.settings.classes,) * 2, int)
        np.add.at(counts, (labels, found), 1)
        folder = emptied(run.folder / "evals" / self.name)
        (folder / "confusion.json").write_text(json.dumps({"counts": counts.tolist()}) + "\n")
        yield "accuracy", float((found == labels).mean())
        yield "rows", len(labels)
