"""The one loop: it trains models, tokenizers and judges alike, and knows of them only `task.loss`.

Order of a step: data, step, write the metrics of the step before, evaluate, save, look for a signal.
"""

import contextlib
import functools
import itertools
import operator
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import jax
from etils.epath import Path

import mm
from mm import artefact, checkpoint, config, hosts, initial, metrics, progress, workdir
from mm import state as states
from mm.data.opened import OpenData, open_data
from mm.errors import UserError
from mm.optim import make_optimizer
from mm.paths import cache_of, keep_programs
from mm.report import write_report
from mm.sharding import abstract_batch, check_divided, here, make_mesh, part_of_host, put_batch
from mm.signals import Agreed, Signals
from mm.step import Ahead, Step, jitted, term_cosines
from mm.tasks import Evaluator, Run, Task


class Trainer:
    """One experiment in one folder, from opening the data to the report.

    Attributes:
      cache: what is built, tokenized and compiled; below `folder` where none is named.
      wandb: project that the figures go to as well; empty = none.
    """

    def __init__(
        self, exp: config.Experiment, folder: Path, cache: Path | None = None, wandb: str = ""
    ):
        folder = Path(folder)
        cache = Path(cache or cache_of(folder))
        self.exp, self.folder, self.cache, self.wandb = exp, folder, cache, wandb
        keep_programs(cache)
        self.data: OpenData = hosts.first_before(lambda: opened(exp.data, cache))
        self.task: Task = exp.task.build(self.data)
        self.mesh = make_mesh(exp.mesh, exp.data.batch_size)
        self.tx = make_optimizer(exp.optim, exp.steps)
        self.undivided = check_divided({"params": self.abstract_state["params"]}, self.mesh)
        self.checkpoints = checkpoint.Checkpoints(folder / "checkpoints", exp.keep)
        self.tokenizers = self.data.fingerprints
        self.spent = {"seconds": 0.0, "starts": 0}
        self.step_ms: list[float] = []
        self.first_step_seconds: float | None = None
        self.elsewhere = Path(tempfile.mkdtemp()) if not hosts.first() else folder

    def restore(self) -> states.State:
        """The newest checkpoint's state, or a fresh one.

        Raises:
          UserError: the checkpoint was written with other tokenizers or other data.
        """
        found = self.checkpoints.restore_newest(self.abstract_state, self.check)
        if found is None:
            ema = self.exp.optim.ema > 0
            state = states.init(self.task, self.tx, self.exp.seed, ema, self.mesh)
            return initial.given(state, self.exp, self.task) if self.exp.init else state
        state, meta = found
        self.spent = meta["spent"]
        if meta["machine"] != machine():
            print(
                "another machine type, device count or jax than the checkpoint's: continues, not bit-equal"
            )
        return state

    def check(self, step: int, meta: dict[str, Any]) -> None:
        """Raises UserError if a checkpoint was written with other tokenizers or other data."""
        self.checkpoints.check_tokenizers(step, self.tokenizers)
        if meta["data"] != self.data.fingerprint:
            raise UserError(
                f"{self.checkpoints.folder}/{step}: written with other data ({meta['data']}, now {self.data.fingerprint}); "
                "bring that back, or use another --workdir"
            )

    def save(self, state: states.State, step: int, seconds: float) -> None:
        spent = {"seconds": self.spent["seconds"] + seconds, "starts": self.spent["starts"] + 1}
        meta = {
            "data": self.data.fingerprint,
            "tokenizers": self.tokenizers,
            "config": config.fingerprint(self.exp),
            "spent": spent,
            "machine": machine(),
        }
        self.checkpoints.save(step, state, meta)

    @functools.cached_property
    def abstract_state(self) -> states.State:
        """Shapes, dtypes and shardings of the state."""
        return states.abstract(self.task, self.tx, self.exp.seed, self.exp.optim.ema > 0, self.mesh)

    def run_of(self, state: states.State) -> Run:
        """What evaluators get. Every host evaluates alike, on its own copy; what others than the first keep is dropped."""
        params, buffers = here((state[self.exp.optim.evaluated], state["buffers"]), self.mesh)
        return Run(
            self.task,
            params,
            buffers,
            self.data,
            self.folder if hosts.first() else self.elsewhere,
            self.exp.seed,
        )

    def evaluate_again(self) -> None:
        """Evaluates the newest checkpoint and writes results and report anew.

        Raises:
          UserError: there is none.
        """
        if self.checkpoints.latest() is None:
            raise UserError(f"{self.folder}: has no checkpoint yet; train first (--mode=train)")
        self.finish(self.restore())

    def train(self) -> bool:
        """Trains to the last step and evaluates; False if a signal stopped it before (saved)."""
        steps = self.exp.steps
        left = (self.checkpoints.latest() or 0) < steps
        step_fn = self.compile_step() if left else None
        with progress.work("making the state"):
            state = self.restore()
        start = int(state["step"])
        device = jax.devices()[0].platform
        print(
            f"{self.exp.name}: {states.count(state['params']):,} parameters, {len(jax.devices())} {device} device(s), mesh {dict(self.mesh.shape)}"
        )
        for line in self.undivided:
            print(line)
        if start >= steps and workdir.results(self.folder):
            print(
                f"finished: {start} steps, results in {self.folder / 'results.json'} (evaluate again: --mode=evaluate)"
            )
            return True
        if start:
            print(f"continues after step {start}", flush=True)
        if start < steps:
            step_fn = step_fn or self.compile_step()  # the last checkpoint was damaged
            batches = self.batches(step_fn, start)
            parting = hosts.parting(self.folder, self.checkpoints.latest)
            with Signals() as signals, parting, contextlib.closing(self.writers(start)) as writers:
                state = self.loop(step_fn, state, batches, signals, writers)
            if int(state["step"]) < steps:
                print(
                    f"{signals.asked or 'another host was stopped'}: saved step {int(state['step'])} in {self.folder}; the same command continues"
                )
                return False
        self.finish(state)
        return True

    def writers(self, start: int) -> metrics.Writers:
        """Where the values of the steps after `start` go."""
        if not hosts.first():
            return metrics.Writers()
        made: list[metrics.Writer] = [
            metrics.Jsonl(self.folder / "metrics.jsonl", start),
            metrics.TensorBoard(self.folder / "tensorboard", start, self.cache),
        ]
        if self.wandb:
            from mm.weights_and_biases import WandB

            made.append(WandB(self.wandb, self.folder, self.exp))
        return metrics.Writers(*made, metrics.Bar(self.exp.steps, start))

    def compile_step(self) -> Step:
        """The step, being compiled from shapes alone: the first batch may have to wait until all is tokenized."""
        exp = self.exp
        state = self.abstract_state
        step = jitted(self.task, self.tx, exp.optim, exp.seed, state)
        shapes = self.data.abstract_batch(exp.data.batch_size)
        if shapes is None:
            return step
        return Ahead(step, state, abstract_batch(shapes, self.mesh))

    def batches(self, step_fn: Step, start: int) -> Iterator[Any]:
        """What this host reads of the batches behind step `start`; the first one is there, and the step compiled.

        Until then all data may have to be tokenized: a signal need not wait for that, as nothing is lost.
        """
        exp = self.exp
        size = exp.data.batch_size
        batches = self.data.batches(
            "train", seed=exp.seed, start=start, steps=exp.steps, batch_size=size,
            part=part_of_host(self.mesh, size),
        )  # fmt: skip
        first = next(batches)
        if isinstance(step_fn, Ahead):
            step_fn.wait()
        return itertools.chain([first], batches)

    def loop(
        self,
        step_fn: Step,
        state: states.State,
        batches: Iterator[Any],
        signals: Signals,
        writers: metrics.Writers,
    ) -> states.State:
        """To the last step, or until a signal; the state it returns is saved."""
        exp, start = self.exp, int(state["step"])
        cosine_fn = jax.jit(term_cosines(self.task, exp.seed))
        stop = Agreed(self.mesh, lambda: signals.asked)
        self.log = metrics.Log(writers, exp, start)
        began = time.monotonic()
        for step, batch in zip(range(start + 1, exp.steps + 1), batches, strict=False):
            batch = put_batch(batch, self.mesh, exp.data.batch_size)
            cosines = cosine_fn(state, batch) if metrics.due(step, exp.cosine_every) else {}
            state, report = step_fn(state, batch)
            self.log.add(step, report | cosines)
            if self.first_step_seconds is None:
                jax.block_until_ready(report)
                self.first_step_seconds = time.monotonic() - mm.STARTED
            if metrics.due(step, exp.eval_every) and step < exp.steps:
                self.log.flush()
                run = self.run_of(state)
                with signals.at_once():
                    writers.write(step, self.evaluate(run))
                self.log.restart()
            stopped = stop.now()
            if step == exp.steps or stopped or metrics.due(step, exp.save_every):
                self.log.flush()
                self.save(state, step, time.monotonic() - began)
                self.log.restart()
            if stopped:
                break
        self.log.flush()
        self.checkpoints.wait()
        self.step_ms = self.log.step_ms
        self.spent = {
            "seconds": self.spent["seconds"] + time.monotonic() - began,
            "starts": self.spent["starts"] + 1,
        }
        return state

    def evaluate(self, run: Run) -> dict[str, float]:
        """The evaluators that run at intervals, as flat numbers."""
        named = ((e.name, evaluated(e, run)) for e in self.exp.evals if e.when == "interval")
        return {
            f"{name}/{key}": value
            for name, pairs in named
            for key, value in pairs
            if isinstance(value, (int, float))
        }

    def finish(self, state: states.State) -> None:
        """Exports the artefact, runs all evaluators, writes results.json and the report."""
        run = self.run_of(state)
        with progress.work("exporting the artefact"):
            exported = self.task.export(run.params, run.buffers, run.folder / "artefact")
        results: dict[str, Any] = {"train": self.figures(state)}
        if exported:
            mark = artefact.read(exported)[0]["fingerprint"][:8]
            print(f"artefact: {exported}#{mark}", flush=True)  # as a config names it
            results["artefact"] = str(exported.relative_to(run.folder))
        began = time.monotonic()
        for evaluator in self.exp.evals:
            for name, value in evaluated(evaluator, run):
                results.setdefault(evaluator.name, {})[name] = value
        results["train"] |= {
            "evaluated_by": mm.__version__,
            "evaluation_seconds": round(time.monotonic() - began, 1),
            "peak_memory_mib": peak_memory_mib(),
        }
        if not hosts.first():
            return
        workdir.write_json(self.folder / "results.json", results)
        report = write_report(self.folder)
        print(f"results: {self.folder / 'results.json'}\nreport:  {report}")

    def figures(self, state: states.State) -> dict[str, Any]:
        """Steps, seconds, speed, memory, versions, machine. Figures that only a whole run has are None in others."""
        exp, before = self.exp, workdir.results(self.folder)
        if not self.step_ms and before:
            return before["train"]  # evaluated again: the training's figures stand
        step_ms = statistics.median(self.step_ms) if self.step_ms else None
        places = self.data.space.places if self.data.space else None
        rate = exp.data.batch_size / step_ms * 1e3 if step_ms else None
        return {
            "steps": int(state["step"]),
            "seconds": round(self.spent["seconds"], 1),
            "starts": self.spent["starts"],
            "step_ms": step_ms,
            "examples_per_second": rate,
            "tokens_per_second": rate * places if rate and places else None,
            "first_step_seconds": self.first_step_seconds,
            "parameters": states.count(state["params"]),
            "corrupt_records": self.data.corrupt,
            "seed": exp.seed,
            "versions": {"mm": mm.__version__}
            | {
                p: metadata.version(p)
                for p in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
            },
            "machine": machine(),
        }


def opened(settings: config.Data, cache: Path) -> OpenData:
    """The data; on several hosts tokenized as well, so that only the first one has that to do in a shared cache."""
    data = open_data(settings, cache)
    if hosts.several() and data.tokenizers:
        data.tokens("train")
    return data


def evaluated(evaluator: Evaluator, run: Run) -> Iterator[tuple[str, Any]]:
    """What the evaluator yields, with a word on how far it is."""
    total = operator.length_hint(evaluator) or None
    return progress.track(evaluator.run(run), f"evaluating {evaluator.name}", total)


def machine() -> dict[str, Any]:
    """What bit-equality depends on."""
    device = jax.devices()[0]
    return {
        "cpu": platform.machine(),
        "cores": os.cpu_count(),
        "device": device.device_kind,
        "devices": len(jax.devices()),
        "jaxlib": metadata.version("jaxlib"),
    }


def peak_memory_mib() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
