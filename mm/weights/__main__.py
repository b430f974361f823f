"""python -m mm.weights export RUN --out FILE [--card CARD.md]: a trained joint model as one file."""

import os
import sys
from collections.abc import Sequence

from etils.epath import Path

from mm.errors import Parser, UserError, exit_code


def main(argv: Sequence[str]) -> int:
    """Raises UserError: bad input; see `exported.write`."""
    parser = Parser(prog="python -m mm.weights", description=__doc__)
    parser.add_argument("command", choices=("export",))
    parser.add_argument("run", type=Path, help="the --workdir of a run that is finished")
    parser.add_argument("--out", type=Path, required=True, help="name.safetensors")
    parser.add_argument("--card", type=Path, help="Markdown for people: data, licence, limits")
    options = parser.parse_args(argv)
    if options.card and not options.card.is_file():
        raise UserError(f"--card {options.card}: no such file; write one, or leave it out")
    sys.path.insert(0, os.getcwd())  # recipes of the checkout: data_pipelines
    from mm.weights import exported

    card = options.card.read_text() if options.card else ""
    mark = exported.write(options.run, options.out, card)
    size = options.out.stat().length / 1e6
    print(f"{options.out}: {size:.1f} MB, fingerprint {mark}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
