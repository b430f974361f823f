"""The work as a pipeline of Apache Beam: each element is a shard, and a worker opens what it needs once."""

import contextlib
import dataclasses
import functools
import json
import os
import shlex
import threading
from collections.abc import Iterator
from typing import Any

import apache_beam as beam  # pyright: ignore[reportMissingImports]  # the extra `beam`
from apache_beam.options import pipeline_options  # pyright: ignore[reportMissingImports]
from etils.epath import Path

from mm.errors import UserError
from mm.pipeline.plan import Job, Unit
from mm.pipeline.run import Means
from mm.pipeline.work import Worker

# The DirectRunner of today hands a pipeline to Prism first, a program that it fetches.
RUNNERS = {"DirectRunner": "apache_beam.runners.portability.fn_api_runner.FnApiRunner"}


@functools.lru_cache(maxsize=1)
def _worker(job: str) -> Worker:
    """One for a process, however many copies of the function Beam makes in it. `job`: as JSON."""
    return Worker(Job(**json.loads(job)))


class Tokenize(beam.DoFn):
    """Shards -> files. What the user can mend is left beside them in words: an error of Beam's is a page of stack traces."""

    def __init__(self, job: Job):
        self.job = job

    def setup(self) -> None:
        self.wrong = ""
        try:
            self.worker = _worker(json.dumps(dataclasses.asdict(self.job)))
        except UserError as e:
            self.wrong = str(e)

    def process(self, unit: Unit) -> Any:
        wrong = self.wrong
        if not wrong:
            try:
                self.worker.shard(unit)
            except UserError as e:
                wrong = str(e)
        if wrong:
            path = unit.path(Path(self.job.folder), "wrong")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wrong)
        return ()


def run(job: Job, units: list[Unit], means: Means) -> None:
    """Makes the shards, by the runner's workers, and waits until they are made."""
    options = [f"--runner={RUNNERS.get(means.runner, means.runner)}", *shlex.split(means.options)]
    if means.runner == "DirectRunner":
        options += [
            f"--direct_num_workers={means.workers}",
            "--direct_running_mode=multi_processing",
        ]
    try:
        pipeline = beam.Pipeline(options=pipeline_options.PipelineOptions(options))
    except (ValueError, ImportError) as e:
        raise UserError(f"--runner={means.runner}: {' '.join(str(e).split())[:200]}") from e
    # Without the shuffle all shards would stay with the one worker that was given the list.
    _ = pipeline | beam.Create(units) | beam.Reshuffle() | beam.ParDo(Tokenize(job))
    with quiet():
        pipeline.run().wait_until_finish()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps from standard error what workers log of their own coming and going; all else passes."""
    before, (read, write) = os.dup(2), os.pipe()

    def pass_on() -> None:
        with open(read, "rb") as lines:
            for line in lines:
                if not line.startswith((b"INFO:", b"WARNING:")):
                    os.write(before, line)

    thread = threading.Thread(target=pass_on, daemon=True)
    os.dup2(write, 2)
    os.close(write)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 2)
        thread.join(5)  # a worker that is still ending holds its end open
