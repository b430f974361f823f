"""The command line's entry: python -m mm.main --config FILE. See mm.flags for what it takes."""

import contextlib
import sys
from collections.abc import Sequence

from mm import progress
from mm.errors import STOPPED, exit_code
from mm.memory import start_with_huge_pages


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for anything the user can mend)."""

    def command() -> int:
        with progress.work("starting"):  # imports JAX and the parts that the config names
            from absl import logging

            from mm import flags

            logging.set_verbosity(logging.ERROR)  # Orbax warns of what is meant
            parsed = flags.parse(list(argv or sys.argv))
        return run(parsed)

    code = exit_code(command)
    if code and "mm.hosts" in sys.modules and sys.modules["mm.hosts"].several():
        sys.modules["mm.hosts"].leave(code)  # a farewell would wait for the others
    return code


def run(command) -> int:
    """Dispatches to the mode; returns the exit code."""
    from mm import workdir

    if command.sweep:
        from mm import sweep

        sweep.run(command.sweep, command.workdir, command.origins, command.wandb)
    elif command.mode in ("train", "evaluate"):
        train(command)
    elif command.mode == "compile":
        return compiled(command)
    elif command.mode == "check-data":
        from mm import paths
        from mm.data import check

        exp = command.experiment or workdir.experiment(command.workdir, whole=True)
        out = command.out if command.out_given else None
        for line in check.lines(exp.data, paths.cache_of(command.workdir), out, exp.task):
            print(line, flush=True)
    elif command.mode == "tokenize":
        tokenize(command)
    else:
        with progress.work("starting"):
            from mm import api, paths

            paths.keep_programs(paths.home_cache())
        model = api.Model.load(command.model)
        files = api.embed_files if command.mode == "embed" else api.generate_files
        for line in files(model, command):
            print(line)
    return 0


def compiled(command) -> int:
    """--mode=compile; 2 where the program does not fit."""
    with progress.work("starting"):
        import json

        from mm import compile, paths

    cache = paths.cache_of(command.workdir)
    report = compile.run(command.experiment, command.topology, command.slices, cache)
    print("\n".join(compile.lines(report)))
    if command.json:
        paths.Path(command.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if report["fits"] else 2


def tokenize(command) -> None:
    """--mode=tokenize."""
    with progress.work("starting"):
        from mm import paths
        from mm.pipeline import run
        from mm.pipeline.plan import Wanted

    cache = paths.cache_of(command.workdir)
    wanted = Wanted(command.splits, command.shard_size, command.passes)
    means = run.Means(command.runner, command.workers, command.runner_options)
    for line in run.tokenize(command.experiment, command.out, cache, wanted, means):
        print(line, flush=True)


def train(command) -> None:
    """--mode=train, and evaluate."""
    from mm import hosts, workdir

    exp, folder = command.experiment, command.workdir
    hosts.start(exp)
    with contextlib.ExitStack() as stack:
        if hosts.first():
            stack.enter_context(workdir.tidied(folder))
        if exp:
            hosts.first_alone(lambda: workdir.claim(folder, exp, command.origins[""]))
        exp = exp or workdir.experiment(folder, whole=True)
        hosts.first_alone(lambda: stack.enter_context(workdir.held(folder)))
        with progress.work("starting"):
            from mm.train import Trainer
        trainer = Trainer(exp, folder, wandb=command.wandb)
        if command.mode == "train":
            trainer.train()
        else:
            trainer.evaluate_again()


if __name__ == "__main__":
    start_with_huge_pages()
    code = main()
    if code == STOPPED:
        from mm import hosts

        hosts.leave(code)  # a step may still be compiled in a thread: Python would abort at its end
    sys.exit(code)
