"""python -m mm.weights: joint models as files, and 4M's weights.

export RUN --out FILE [--card CARD.md]    a trained joint model as one file
import FILE --out RUN                     a 4M model (a .safetensors, its folder, or a hub id) as a run
export RUN --out FILE --form 4m           and back, under 4M's names
parity STEM                               whether a golden set of 4M's (STEM.safetensors, .npz, .json) is met; else exit code 1
"""

import argparse
import os
import sys
from collections.abc import Sequence

from etils.epath import Path

from mm.errors import Parser, UserError, exit_code


def main(argv: Sequence[str]) -> int:
    """Raises UserError: bad input; see `exported.write`, `imported` and `parity`."""
    parser = Parser(prog="python -m mm.weights", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    to_file = commands.add_parser("export", help="a run as a file")
    to_file.add_argument("run", type=Path, help="the --workdir of a run that is finished")
    to_file.add_argument("--out", type=Path, required=True, help="name.safetensors")
    to_file.add_argument("--card", type=Path, help="Markdown for people: data, licence, limits")
    to_file.add_argument("--form", choices=("mm", "4m"), default="mm", help="whose names")
    to_run = commands.add_parser("import", help="a 4M model as a run")
    to_run.add_argument("file", help="a .safetensors of 4M, its folder, or a hub id (owner/name)")
    to_run.add_argument("--out", type=Path, required=True, help="a new folder")
    asked = commands.add_parser("parity", help="a golden set, compared")
    asked.add_argument("stem", type=Path, help="of STEM.safetensors, STEM.npz and STEM.json")
    options = parser.parse_args(argv)
    sys.path.insert(0, os.getcwd())  # recipes of the checkout: data_pipelines
    return {"export": _export, "import": _import, "parity": _parity}[options.command](options)


def _export(options: argparse.Namespace) -> int:
    from mm.weights import exported, imported

    if options.card and not options.card.is_file():
        raise UserError(f"--card {options.card}: no such file; write one, or leave it out")
    if options.form == "4m":
        said = f"{imported.export(options.run, options.out)} tensors"
    else:
        card = options.card.read_text() if options.card else ""
        said = f"fingerprint {exported.write(options.run, options.out, card)}"
    print(f"{options.out}: {options.out.stat().length / 1e6:.1f} MB, {said}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from mm.weights import imported

    settings, space = imported.write(imported.fetched(options.file), options.out)
    print(
        f"{options.out}: width {settings.width}, {settings.encoder_layers} + {settings.decoder_layers} layers, "
        f"{len(space.names)} modalities; --config.init={options.out} starts from it"
    )
    return 0


def _parity(options: argparse.Namespace) -> int:
    from mm.weights import parity

    return 0 if parity.report(parity.check(options.stem)) else 1


if __name__ == "__main__":
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
