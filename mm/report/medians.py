"""Figures over seeds: the median of several runs' results, beside its interval and what the seeds span.

python -m mm.report.medians docs/results/digits/seed*.json         a Markdown table
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils.epath import Path

from mm import workdir
from mm.errors import UserError, exit_code
from mm.report.tables import Figure, flat

MAIN = (".accuracy", ".facts.mean", ".map", "train.seconds")


def main_figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """The figures by which joint models are compared: accuracy, facts and mean average precision of every direction."""
    apart = ("baselines", "chance", "each")
    own = {n: f for n, f in flat(results).items() if n.endswith(MAIN)}
    return {n: f for n, f in own.items() if not set(n.split(".")) & set(apart)}


def medians(runs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Figure, float, float]]:
    """Figure -> (median, lowest, highest) of the runs; the interval is that of the run in the middle.

    Raises:
      UserError: the runs do not have the same figures.
    """
    found = [main_figures(results) for results in runs]
    if any(f.keys() != found[0].keys() for f in found):
        raise UserError("the runs have not the same figures; name runs of one experiment")
    out = {}
    for name in found[0]:
        ordered = sorted((f[name] for f in found), key=lambda f: f.value)
        middle = ordered[(len(ordered) - 1) // 2]
        value = statistics.median(f.value for f in ordered)
        out[name] = (Figure(value, middle.interval), ordered[0].value, ordered[-1].value)
    return out


def markdown(runs: Sequence[Mapping[str, Any]]) -> str:
    """The table of `medians`."""
    lines = [
        f"| figure | median of {len(runs)} | 95% interval | lowest, highest |",
        "|---|---|---|---|",
    ]
    for name, (figure, low, high) in medians(runs).items():
        between = " to ".join(f"{v:.3f}" for v in figure.interval or ())
        lines.append(f"| {name} | {figure.value:.3f} | {between} | {low:.3f}, {high:.3f} |")
    return "\n".join(lines)


def main(argv: Sequence[str]) -> int:
    """Prints the table of the results.json that are named."""
    if not argv:
        raise UserError(
            "name the results.json of some runs, as in python -m mm.report.medians docs/results/digits/*.json"
        )
    print(markdown([workdir.read_json(Path(name)) for name in argv]))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
