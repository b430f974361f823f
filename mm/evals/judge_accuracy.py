"""How often a judge is right on real rows that it did not learn from."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm import workdir
from mm.evals import kinds as k
from mm.evals.kinds import Kind
from mm.evals.samples import emptied
from mm.evals.statistics import accuracy
from mm.tasks import Run


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
        """Yields (`accuracy`, share), its (`interval`, [low, high]), (`rows`, how many); counts of what is
        taken for what stay in evals/<name>/confusion.json."""
        kind = Kind(name=run.task.settings.column)
        rows = k.find_rows(run.data, self.split, kind)
        rows = rows[np.unique(rows.row, return_index=True)[1]]  # each once
        labels = rows.group
        found = run.task.judge(run.params).predict(k.read(run.data, self.split, kind, rows))
        counts = np.zeros((run.task.settings.classes,) * 2, int)
        np.add.at(counts, (labels, found), 1)
        folder = emptied(run.folder / "evals" / self.name)
        workdir.write_json(folder / "confusion.json", {"counts": counts.tolist()})
        yield from accuracy(found == labels, rows.item).items()
        yield "rows", len(labels)
