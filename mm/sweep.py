"""A sweep: the runs of one config file, one after the other, each in a folder of its own, and one table.

DIR/NAME/    a run's folder          DIR/cache/   data and compiled programs, shared
DIR/sweep.json   {name: {"state", figures...}}

A run whose `init` is the name of an earlier one of the sweep starts from its weights.
"""

import dataclasses
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils.epath import Path
from rich import box
from rich.console import Console
from rich.table import Table

import mm
from mm import config, progress, workdir
from mm.errors import UserError
from mm.paths import cache_of
from mm.recipes import Runs
from mm.report.tables import is_number, main_figures
from mm.train import Trainer

TRAINED = ("steps", "seconds", "step_ms")


def run(runs: Runs, folder: Path, origins: Mapping[str, config.Origin], wandb: str = "") -> None:
    """Runs what is not finished, and shows the table of all. A signal stops it behind the run that it stopped.

    Raises:
      UserError: a folder that is not this sweep's, before any work; or, at the end, runs that failed.
    """
    runs, later = _linked(runs, folder)
    _claim({n: exp for n, exp in runs.items() if n not in later}, folder, origins)
    with workdir.held(folder):
        _run(runs, folder, {n: origins[n] for n in later}, wandb)


def _linked(runs: Runs, folder: Path) -> tuple[Runs, set[str]]:
    """The runs with the folders of those that they start from, and which these are."""
    linked = {
        n: dataclasses.replace(exp, init=str(folder / exp.init))
        for i, (n, exp) in enumerate(runs.items())
        if exp.init in list(runs)[:i]
    }
    return {**runs, **linked}, set(linked)


def _run(runs: Runs, folder: Path, later: Mapping[str, config.Origin], wandb: str) -> None:
    """Args:
    later: the runs that are claimed when their turn comes."""
    states = {n: "finished" if finished(folder / n, exp) else "waiting" for n, exp in runs.items()}
    failed: dict[str, str] = {}
    with progress.work("sweep", total=len(runs)) as work:
        for done, (name, exp) in enumerate(runs.items(), 1):
            if states[name] != "finished":
                print(f"run {done} of {len(runs)}: {name}", flush=True)
                try:
                    if name in later:
                        workdir.claim(folder / name, exp, later[name])
                    trainer = Trainer(exp, folder / name, cache_of(folder), wandb)
                    states[name] = "finished" if trainer.train() else "stopped"
                    trainer.checkpoints.close()
                except UserError as e:
                    failed[name], states[name] = str(e), f"failed: {e}"
                    print(f"{name}: failed: {e}", flush=True)
                _write(folder, states)
                jax.clear_caches()
                mm.STARTED = time.monotonic()  # the next run's first step counts from here
            if states[name] == "stopped":
                break
            work.update(done)
    print_table(_write(folder, states))
    if failed:
        raise UserError(
            f"{len(failed)} of {len(runs)} runs failed ({', '.join(failed)}); "
            f"reasons are in {folder / 'sweep.json'}, the same command tries them again"
        )


def _claim(runs: Runs, folder: Path, origins: Mapping[str, config.Origin]) -> None:
    mark = folder / "sweep.json"
    workdir.check_free(folder)
    if folder.exists() and not mark.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not a sweep's folder; use another --workdir")
    if not mark.exists():
        workdir.write_json(mark, {})
    for name, exp in runs.items():
        workdir.claim(folder / name, exp, origins[name])


def finished(folder: Path, exp: config.Experiment) -> bool:
    """Whether the run there has trained to the end and was evaluated."""
    return workdir.results(folder).get("train", {}).get("steps", 0) >= exp.steps


def _write(folder: Path, states: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Writes sweep.json and returns it."""
    rows: dict[str, dict[str, Any]] = {}
    for name, state in states.items():
        results = workdir.results(folder / name)
        train = {k: results["train"].get(k) for k in TRAINED} if results else {}
        main = {k: value for k, (value, _) in main_figures(results).items()}
        rows[name] = {"state": state} | main | train
    workdir.write_json(folder / "sweep.json", rows)
    return rows


def print_table(rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A line per run, a column per figure."""
    columns = list(dict.fromkeys(k for row in rows.values() for k in row))
    table = Table("run", box=box.SIMPLE)
    for column in columns:
        table.add_column(column, justify="left" if column == "state" else "right")
    for name, row in rows.items():
        cells = (row.get(column) for column in columns)
        table.add_row(name, *(f"{c:.4g}" if is_number(c) else str(c or "") for c in cells))
    # A log has no width; nothing is to be cut there.
    console = Console(width=None if sys.stdout.isatty() else 240)
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines() if line.strip()))
