"""python -m mm.perf joint | contrast | step | tokenizers | pipeline.

joint      what contrast adds to a step of masked generation, at the config's size and at 12 + 12 layers
contrast   what the forms of contrast cost over eight modalities, of the joint step
step       where the time of a step goes, and how much of this machine's matrix products it gets
tokenizers how fast the config's tokenizers write and read
pipeline   what --mode=tokenize leaves of its tokenizers' throughput, and the reader's speed beside training's
"""

import argparse
import contextlib
import json
import sys

from mm import flags, paths
from mm.errors import exit_code
from mm.memory import start_with_huge_pages
from mm.perf import contrast, joint, pipeline, step, tokenizers
from mm.train import machine

WHAT = {
    "joint": joint,
    "contrast": contrast,
    "step": step,
    "tokenizers": tokenizers,
    "pipeline": pipeline,
}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m mm.perf",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=list(WHAT))
    parser.add_argument("--pairs", type=int, default=20, help="how often everything is measured")
    parser.add_argument(
        "--config",
        default="configs/quickstart.py",
        help="whose task, optimizer and batch size; --config.a.b=v overrides a field",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    options, overrides = parser.parse_known_args(argv)
    command = flags.parse(["mm.perf", "--config", options.config, *overrides])
    exp = command.experiment
    assert exp is not None  # parse raises where there is none
    # How far it is goes to standard error, where JSON is wanted.
    with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):
        found = WHAT[options.what].measure(exp, options.pairs, paths.cache_of(command.workdir))
    if options.json:
        print(json.dumps({"machine": machine(), options.what: found}, indent=1))
        return 0
    print(f"{machine()}, batch {exp.data.batch_size}, {options.pairs} rounds")
    print("\n".join(WHAT[options.what].lines(found)))
    return 0


if __name__ == "__main__":
    start_with_huge_pages()
    sys.exit(exit_code(lambda: main(sys.argv[1:])))
