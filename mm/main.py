"""The command line's entry: python -m mm.main --config FILE. See mm.flags for what it takes."""

import os
import sys
from collections.abc import Sequence

from mm import progress
from mm.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for anything the user can mend)."""
    sys.path.insert(0, os.getcwd())  # recipes of the checkout: data_pipelines
    try:
        with progress.work("starting"):  # imports JAX and the parts that the config names
            from absl import logging

            from mm import flags

            logging.set_verbosity(logging.ERROR)  # Orbax warns of what is meant
            command = flags.parse(list(argv or sys.argv))
        run(command)
    except UserError as e:
        print(f"mm: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mm: stopped at once; the last checkpoint stands", file=sys.stderr)
        return 130
    return 0


def run(command) -> None:
    """Dispatches to the mode."""
    from mm import workdir

    if command.sweep:
        from mm import sweep

        sweep.run(command.sweep, command.workdir, command.wandb)
    elif command.mode in ("train", "evaluate"):
        if command.experiment:
            workdir.claim(command.workdir, command.experiment)
        with progress.work("starting"):
            from mm.train import Trainer
        trainer = Trainer(
            command.experiment or workdir.experiment(command.workdir),
            command.workdir,
            wandb=command.wandb,
        )
        if command.mode == "train":
            trainer.train()
        else:
            trainer.evaluate_again()
    else:
        with progress.work("starting"):
            from mm import api

        model = api.Model.load(command.workdir)
        files = api.embed_files if command.mode == "embed" else api.generate_files
        for line in files(model, command):
            print(line)


if __name__ == "__main__":
    sys.exit(main())
