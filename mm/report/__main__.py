"""python -m mm.report: a run's page anew, two runs on one page, or a run against its reference."""

import sys

from etils.epath import Path

from mm.errors import Parser, UserError, exit_code
from mm.report import reference
from mm.report.compare import existing_run, write_comparison
from mm.report.page import write_report

USAGE = """python -m mm.report RUN                       RUN/report/index.html anew, from the run's files
       python -m mm.report A B [--out FILE]          two runs on one page (default: A/report/compare.html)
       python -m mm.report RUN --against reference   exit code 1 where a curve leaves its reference's band
       python -m mm.report RUN --as-reference        keep its curves as docs/results/NAME.json"""


def main(argv: list[str]) -> int:
    """Returns 0; 1 for a drift; 2 for what the user can mend."""
    return exit_code(lambda: run(argv), "mm.report")


def run(argv: list[str]) -> int:
    """See `USAGE`.

    Raises:
      UserError: bad input.
    """
    parser = Parser(prog="python -m mm.report", usage=USAGE)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's --workdir")
    parser.add_argument("--out", type=Path, help="where the comparison of two runs goes")
    parser.add_argument("--against", help="`reference`, or the path of one")
    parser.add_argument("--as-reference", action="store_true")
    options = parser.parse_args(argv)
    runs, alone = options.runs, options.against or options.as_reference
    if len(runs) > (1 if alone else 2):
        raise UserError(f"{len(runs)} runs: one has a page, two are compared; leave some out")
    if options.out and len(runs) != 2:
        raise UserError("--out: only a comparison of two runs takes it; leave it out")
    if len(runs) == 2:
        out = options.out or runs[0] / "report" / "compare.html"
        print(f"comparison: {write_comparison(runs[0], runs[1], out)}")
        return 0
    found = existing_run(runs[0])
    if options.as_reference:
        if found.damaged:
            raise UserError(f"{runs[0]}: {'; '.join(found.damaged.values())}; keep a whole run")
        print(f"reference: {reference.keep(found)}")
        return 0
    if options.against:
        remarks, drifts = reference.against(found, reference.find(found, options.against))
        drifts_said = [f"drift: {d}" for d in drifts or ["none"]]
        print("\n".join([*found.damaged.values(), *remarks, *drifts_said]))
        return 1 if drifts else 0
    try:
        print(f"report: {write_report(runs[0])}")
    except OSError as e:
        raise UserError(f"{runs[0]}: cannot be written ({e.strerror}); copy the run") from e
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
