"""python -m mm.papers run NAME ...|all, python -m mm.papers list [--json], python -m mm.papers joint [RUNS].

run     trains the arms of configs/papers/NAME.py that are not finished (in runs/papers/NAME/), all seeds of an arm at once,
        keeps the figures and the verdict in docs/results/papers/NAME.json and rewrites docs/papers.md
list    name, numbers in the list of papers, acceptance row, verdict, figures, seconds
joint   docs/joint.md from docs/results/joint/, to which what is finished below the folder RUNS is added first
"""

import argparse
import json
import sys

from etils.epath import Path

from mm.errors import Parser, exit_code
from mm.memory import start_with_huge_pages


def main(argv: list[str]) -> int:
    from mm.papers import run, table

    parser = Parser(
        prog="python -m mm.papers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("what", choices=["run", "list", "joint"])
    parser.add_argument("names", nargs="*", help="files of configs/papers; none, or all: every one")
    parser.add_argument("--json", action="store_true", help="list as JSON")
    parser.add_argument("--workdir", default="runs/papers", help="where runs are kept")
    options = parser.parse_args(argv)
    if options.what == "joint":
        from mm.papers import joint

        for runs in options.names:
            joint.keep(Path(runs))
        joint.write()
        print(joint.PAGE)
        return 0
    chosen = [n for n in options.names if n != "all"] or table.names()
    for name in chosen:
        table.opened(name)  # a misspelt one is told before any work
    if options.what == "run":
        for name in chosen:
            kept = run.run(name, Path(options.workdir))
            print(f"{name}: {kept['verdict']}", *table.figures(kept), sep="\n  ", flush=True)
            table.write()
    elif options.json:
        print(json.dumps([table.row(name) for name in chosen], indent=1))
    else:
        for name in chosen:
            row = table.row(name)
            print(f"{name}: row {row['row']}, {row['verdict']}", *table.figures(row), sep="\n  ")
    return 0


if __name__ == "__main__":
    start_with_huge_pages()
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
