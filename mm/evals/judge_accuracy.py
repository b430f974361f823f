"""How often a judge is right on real rows that it did not learn from."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from mm.tasks import Run
from mm.tasks.judge import accuracy, labelled


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
        """Yields (`accuracy`, share), (`rows`, how many)."""
        rows, labels = labelled(run.data, run.task.settings.column, self.split)
        yield from accuracy(run.task.judge(run.params), rows, labels).items()
