"""How far the judges can be trusted: their accuracy on real test rows, as they are and through the
tokenizer.

The second is the ceiling of every generation accuracy: what a perfect model of the tokens would
reach.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from mm.evals import kinds as k
from mm.evals.kinds import Kind
from mm.evals.statistics import accuracy
from mm.tasks import Run


@dataclasses.dataclass(kw_only=True, slots=True)
class Judges:
    """Yields (kind, {real, tokenized, real_interval, tokenized_interval, items}).

    Attributes:
      kinds: those with a judge are evaluated.
      count: distinct test items at most.
    """

    kinds: tuple[Kind, ...]
    count: int = 2000
    split: str = "test"
    name: str = "judge"
    when: str = "end"

    def __length_hint__(self) -> int:
        return len(self.kinds)

    def validate(self) -> None:
        k.check(self.kinds, self.split)

    def run(self, run: Run) -> Iterator[tuple[str, dict[str, Any]]]:
        for kind in self.kinds:
            if not k.readers(kind):
                continue
            judge = k.open_judge(kind)
            rows = k.find_rows(run.data, self.split, kind).distinct()
            rows = rows[np.random.default_rng(run.seed).permutation(len(rows))[: self.count]]
            raw = k.read(run.data, self.split, kind, rows)
            ids, length = k.tokens(run.data, self.split, kind, rows)
            decoded = k.tokenizer_of(run.data, kind).decode(ids, length)
            figures: dict[str, Any] = {}
            for name, seen in (("real", raw), ("tokenized", decoded)):
                found = accuracy(
                    k.strictest(judge(seen), rows.group) == rows.group, k.contents(raw, rows)
                )
                figures |= {name: found["accuracy"], f"{name}_interval": found["interval"]}
            yield kind.name, figures | {"items": len(rows)}
