"""What --mode=tokenize leaves of its tokenizers' speed, and how much faster than training its tokens are read.

Both of this machine, in one run: shards are made, and their rows, in memory already, encoded by the same jitted
tokenizers, in turn. Beam hands out shards whole, and is not in it.
"""

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from etils.epath import Path

from mm import config, progress, workdir
from mm.data.opened import open_data
from mm.data.token_files import MANIFEST, file_name, write_records
from mm.data.tokenized import Tokenized
from mm.errors import UserError
from mm.perf.joint import stepper
from mm.pipeline import plan, run, work

SHARDS, SIZE, STEPS = 4, 8192, 10


def measure(exp: config.Experiment, pairs: int, cache: Any) -> dict[str, Any]:
    """Per modality seconds of the pipeline and of its tokenizer for a shard; the reader's and training's examples a second.

    Raises:
      UserError: the config has no tokenizers.
    """
    with tempfile.TemporaryDirectory() as folder:
        job = plan.make(exp, Path(folder), cache, plan.Wanted(("train",), SIZE))
        job.plan["examples"]["train"] = min(SHARDS * SIZE, job.plan["examples"]["train"])  # pyright: ignore[reportIndexIssue]
        worker, units = work.Worker(job), list(job.units())
        for unit in progress.track(units, "making shards to read"):
            worker.shard(unit)
        workdir.write_json(Path(folder) / MANIFEST, run.complete(job))
        found = {
            name: kept(worker, name, itertools.islice(itertools.cycle(units), pairs), Path(folder))
            for name in progress.track(worker.forms, "measuring tokenizers")
        }
        return {
            "modalities": found,
            "reading": reading(exp, folder, cache, pairs),
        }


def kept(
    worker: work.Worker, name: str, units: Iterator[plan.Unit], folder: Path
) -> dict[str, Any]:
    """One modality of some shards: the pipeline's time beside the tokenizer's own, medians, and of their ratios.

    `ratio_with_source`: where the source has to make its rows (resample, render), its time is not the pipeline's.
    """
    times, form = [], worker.forms[name]
    for unit in units:
        rows = worker.rows(unit)[name]
        start = time.perf_counter()
        raw = worker.source.columns(unit.split)[name][rows[rows >= 0]]
        began = time.perf_counter()
        worker.tokenizers[name].encode(raw)
        middle = time.perf_counter()
        parts = worker.writing(unit.split, name).records(rows, None)
        write_records(folder / file_name("measured", name, unit.number, unit.count), form, parts)
        times.append((time.perf_counter() - middle, middle - began, began - start))
    medians = (statistics.median(t) * 1e3 for t in zip(*times, strict=True))
    return dict(zip(("pipeline_ms", "tokenizer_ms", "source_ms"), medians, strict=True)) | {
        "ratio": statistics.median(own / whole for whole, own, _ in times),
        "ratio_with_source": statistics.median(
            (own + source) / whole for whole, own, source in times
        ),
    }


def reading(exp: config.Experiment, folder: str, cache: Any, pairs: int) -> dict[str, float]:
    """Examples a second: read from disk in batches, and trained on; medians."""
    settings = dataclasses.replace(
        exp.data, source=Tokenized(path=folder), crops=None, missing=None
    )
    data, rows, per = open_data(settings, cache), exp.data.batch_size, 20
    if data.space is None:
        raise UserError("config.data.tokenizers: names none; there is nothing to measure")
    batches = data.batches("train", seed=0, start=0, steps=per * (pairs + 1), batch_size=rows)
    step = stepper(exp.task, exp.optim, data.space, rows)
    read, trained = [], []
    for i in progress.track(range(pairs + 1), "measuring reader and step"):
        began = time.perf_counter()
        for _ in range(per):
            next(batches)
        read.append((time.perf_counter() - began) / per)
        if i < STEPS:
            trained.append(step())
    reader, training = (rows / statistics.median(t) for t in (read[1:], trained))
    return {"reader": reader, "training": training, "ratio": reader / training}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """For people."""
    for name, f in found["modalities"].items():
        yield (
            f"{name}: a shard takes the pipeline {f['pipeline_ms']:.0f} ms, its jitted tokenizer alone "
            f"{f['tokenizer_ms']:.0f} ms: {100 * f['ratio']:.1f}% of its throughput is left; its rows take the "
            f"source {f['source_ms']:.0f} ms, and of both together {100 * f['ratio_with_source']:.1f}% are left"
        )
    r = found["reading"]
    yield (
        f"reader {r['reader']:,.0f} examples/s, training {r['training']:,.0f} examples/s: {r['ratio']:.1f} times as many"
    )
