"""Published systems as configs that prove themselves: what a file in `configs/papers/` says beside its experiments.

PAPER                   who is tested, what was claimed, what must fail
arms()                  {name: Experiment, or a function seed -> results where nothing is trained}
verdict(found)          from {arm: results of each seed}
get_config(arg)         one arm, for `python -m mm.main --config configs/papers/NAME.py:ARM`
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Found = Mapping[str, Sequence[Mapping[str, Any]]]
"""Arm -> per seed {evaluator: {figure: value}}."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """Who is tested, and what was claimed.

    Attributes:
      numbers: of the papers, in the project's list. row: of its acceptance table.
      status: M = the bar was measured before, D = exact, U = the bar is this project's proposal.
      formula: in words. expected: what passes, and what must fail.
    """

    title: str
    numbers: tuple[int, ...]
    row: str
    status: str
    formula: str
    expected: str
    seeds: int = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """`holds`, `partly` or `does not`, and the figures that say so.

    Attributes:
      clauses: what was claimed, in words -> whether it came out.
      figures: means over seeds, or (mean, standard deviation).
    """

    clauses: Mapping[str, bool]
    figures: Mapping[str, Any]

    @property
    def word(self) -> str:
        came = self.clauses.values()
        return "holds" if all(came) else "partly" if any(came) else "does not"


def values(found: Found, arm: str, evaluator: str, figure: str) -> list[float]:
    """One figure of an arm, per seed."""
    return [float(seed[evaluator][figure]) for seed in found[arm]]


def mean(found: Found, arm: str, evaluator: str, figure: str) -> float:
    """Over seeds."""
    return statistics.fmean(values(found, arm, evaluator, figure))


def spread(numbers: Sequence[float]) -> list[float]:
    """[mean, standard deviation], rounded for a table."""
    sd = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return [round(statistics.fmean(numbers), 4), round(sd, 4)]
