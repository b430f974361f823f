"""The command line's entry: python -m mm.main --config FILE. See mm.flags for what it takes."""

import os
import sys
from collections.abc import Sequence

from mm import progress
from mm.errors import exit_code
from mm.memory import start_with_huge_pages


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for anything the user can mend)."""
    sys.path.insert(0, os.getcwd())  # recipes of the checkout: data_pipelines

    def command() -> int:
        with progress.work("starting"):  # imports JAX and the parts that the config names
            from absl import logging

            from mm import flags

            logging.set_verbosity(logging.ERROR)  # Orbax warns of what is meant
            parsed = flags.parse(list(argv or sys.argv))
        return run(parsed)

    return exit_code(command)


def run(command) -> int:
    """Dispatches to the mode; returns the exit code."""
    from mm import workdir

    if command.sweep:
        from mm import sweep

        sweep.run(command.sweep, command.workdir, command.wandb)
    elif command.mode in ("train", "evaluate"):
        if command.experiment:
            workdir.claim(command.workdir, command.experiment, command.origin)
        with progress.work("starting"):
            from mm.train import Trainer
        trainer = Trainer(
            command.experiment or workdir.whole_experiment(command.workdir),
            command.workdir,
            wandb=command.wandb,
        )
        if command.mode == "train":
            trainer.train()
        else:
            trainer.evaluate_again()
    elif command.mode == "check-data":
        from mm.data import check

        exp = command.experiment or workdir.whole_experiment(command.workdir)
        out = command.out if command.out_given else None
        for line in check.lines(exp.data, command.workdir / "cache", out):
            print(line, flush=True)
    else:
        with progress.work("starting"):
            from mm import api

        model = api.Model.load(command.model)
        files = api.embed_files if command.mode == "embed" else api.generate_files
        for line in files(model, command):
            print(line)
    return 0


if __name__ == "__main__":
    start_with_huge_pages()
    sys.exit(main())
