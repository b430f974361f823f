"""python -m benchmarks.peers: our training step and generation beside the original 4M's, in alternation, one thread each.

Prints CPU seconds of each side (the median of the rounds) and the ratio theirs / ours with its quartiles. See README.md.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers import case
from mm.errors import Parser, UserError, exit_code

HERE = Path(__file__).parent
WORK = ("train", "generate 8", "generate 25")


class Side:
    """A process that does named work when it is told to, on one core."""

    def __init__(self, name: str, command: list[str], core: int):
        one = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | one,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )  # fmt: skip
        self._line()

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise UserError(
                f"{self.name}: ended with exit code {self.process.wait()}; its message is above"
            )
        return line

    def run(self, work: str) -> float:
        """CPU seconds that it took."""
        assert self.process.stdin
        print(work, file=self.process.stdin, flush=True)
        return float(self._line())

    def close(self) -> None:
        """Ends it."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def measured(sides: list[Side], work: str, rounds: int) -> dict[str, Any]:
    """One round to warm up, then `rounds` in alternation."""
    taken: dict[str, list[float]] = {s.name: [] for s in sides}
    for i in range(rounds + 1):
        for side in sides if i % 2 else sides[::-1]:
            seconds = side.run(work)
            if i:
                taken[side.name].append(seconds)
    found: dict[str, Any] = {name: statistics.median(some) for name, some in taken.items()}
    if len(sides) == 2:
        ratios = [t / o for o, t in zip(taken["ours"], taken["theirs"], strict=True)]
        found |= {"ratio": statistics.median(ratios), "quartiles": statistics.quantiles(ratios, n=4)[::2]}  # fmt: skip
    return found


def main(argv: list[str]) -> int:
    """Raises UserError: no checkout, or a side that ended."""
    parser = Parser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument(
        "--checkout", type=Path, help="of apple/ml-4m; without it only our side is measured"
    )
    parser.add_argument(
        "--python", default=sys.executable, help="an interpreter that has PyTorch (CPU)"
    )
    parser.add_argument("--size", choices=tuple(case.SIZES), default="tiny_6e_6d")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of ours"
    )
    parser.add_argument("--their-dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--work", choices=WORK, nargs="*", default=WORK)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(argv)
    sides = _sides(options)
    try:
        found = {work: measured(sides, work, options.rounds) for work in options.work}
    finally:
        for side in sides:
            side.close()
    if options.json:
        print(json.dumps(found))
        return 0
    for work, figures in found.items():
        said = ", ".join(f"{s.name} {figures[s.name]:.3f} s" for s in sides)
        if "ratio" in figures:
            low, high = figures["quartiles"]
            said += f": theirs / ours {figures['ratio']:.2f} ({low:.2f} .. {high:.2f})"
        print(f"{work:12} {said} of CPU")
    return 0


def _sides(options: argparse.Namespace) -> list[Side]:
    checkout = options.checkout
    if checkout and not (checkout / "fourm").is_dir():
        raise UserError(f"--checkout {checkout}: no checkout of apple/ml-4m (it has no fourm/)")
    core = min(os.sched_getaffinity(0))
    ours = [sys.executable, "-m", "benchmarks.peers.ours", options.size, options.dtype]
    sides = [Side("ours", ours, core)]
    if checkout:
        theirs = [
            options.python,
            str(HERE / "theirs.py"),
            str(checkout),
            options.size,
            options.their_dtype,
        ]
        sides.append(Side("theirs", theirs, core))
    return sides


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
