"""--mode=tokenize: what is left to do, who does it, and the manifest, which comes last."""

import contextlib
import dataclasses
import importlib.util
import logging
import threading
from collections.abc import Iterator
from typing import Any

from etils.epath import Path

import mm
from mm import config, progress, tokenizers, workdir
from mm.data.token_files import MANIFEST, Shard, remove_partial
from mm.errors import UserError
from mm.pipeline import plan as plans
from mm.pipeline.plan import PARTS, PLAN, Job, Unit, Wanted
from mm.pipeline.work import Worker

HERE = "here"
"""The runner that is none: this process, one shard after the other."""


@dataclasses.dataclass(frozen=True, slots=True)
class Means:
    """Who does the work.

    Attributes:
      runner: of Beam (DirectRunner, DataflowRunner, FlinkRunner, SparkRunner), or `here`. workers: processes of the
        DirectRunner. options: further ones of the runner, as it writes them ("--project=p --region=r").
    """

    runner: str = "DirectRunner"
    workers: int = 2
    options: str = ""

    def check(self) -> None:
        """Raises UserError where Beam is needed and not installed, or a number makes no sense."""
        if self.workers < 1:
            raise UserError(f"--workers={self.workers}: must be positive")
        if self.runner != HERE and importlib.util.find_spec("apache_beam") is None:
            raise UserError(
                f"--runner={self.runner}: needs Apache Beam, the extra `beam` (uv run --extra beam python -m mm.main ...); "
                "--runner=here does without, in one process"
            )


def tokenize(
    exp: config.Experiment, folder: Path, cache: Path, wanted: Wanted, means: Means
) -> Iterator[str]:
    """Makes, or finishes, a folder of tokens; says what it has made, a line at a time.

    Raises:
      UserError: before any work, what cannot be meant; later, a row that cannot be tokenized. What was finished stands.
    """
    means.check()
    with progress.work("opening the data"):
        job = plans.make(exp, folder, cache, wanted)
    with workdir.held(folder, flag="--out"):
        done = plans.claim(job)
        remove_partial(folder)
        if done:
            clear(folder)
            yield f"{folder}: finished before"
            yield from said(workdir.read_json(folder / MANIFEST))
            return
        left = [unit for unit in job.units() if finished(folder, unit) is None]
        if left and len(left) < sum(1 for _ in job.units()):
            yield f"{folder}: continues, {len(left)} shards are left"
        work(job, left, means)
        manifest = complete(job)
        workdir.write_json(folder / MANIFEST, manifest)
        clear(folder)
        yield from said(manifest)


def work(job: Job, left: list[Unit], means: Means) -> None:
    """Makes the shards that are left. Raises UserError for the first that cannot be made."""
    if not left:
        return
    folder = Path(job.folder)
    with counted(folder, left):
        if means.runner == HERE:
            worker = Worker(job)
            for unit in left:
                worker.shard(unit)
            return
        logging.getLogger().setLevel(logging.ERROR)  # Beam tells of packages that it could use
        from mm.pipeline import beam

        for unit in left:
            unit.path(folder, "wrong").unlink(missing_ok=True)
        beam.run(job, left, means)
    for unit in left:
        wrong = unit.path(folder, "wrong")
        if wrong.exists():
            raise UserError(wrong.read_text())


@contextlib.contextmanager
def counted(folder: Path, left: list[Unit]) -> Iterator[None]:
    """Says how many of the shards are finished, whoever makes them, while it lasts."""
    over = threading.Event()
    with progress.work(f"tokenizing into {folder}: shards", len(left)) as doing:

        def watch() -> None:
            while not over.wait(0.5):
                doing.update(sum(unit.path(folder).exists() for unit in left))

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def finished(folder: Path, unit: Unit) -> dict[str, Any] | None:
    """What is known of a finished shard; None where it has to be made, for the first time or again."""
    path = unit.path(folder)
    try:
        known = workdir.read_json(path) if path.exists() else None
        if known is None:
            return None
        shard = Shard(
            unit.split, unit.number, unit.count, known["examples"], known["files"], known["present"]
        )
        for name, facts in shard.files.items():
            if shard.path(folder, name).stat().length != facts["bytes"]:
                return None
        return known
    except (UserError, OSError, KeyError, TypeError):
        return None


def complete(job: Job) -> dict[str, Any]:
    """The manifest of a folder whose shards are all there."""
    folder, loaded = Path(job.folder), tokenizers.load_all(job.data["tokenizers"])
    splits: dict[str, Any] = {}
    replaced: set[str] = set()
    for unit in job.units():
        known = finished(folder, unit)
        if known is None:
            raise UserError(
                f"{folder}: {unit.split} shard {unit.number} was not made; run the same command again"
            )
        replaced |= set(known.pop("replaced"))
        splits.setdefault(unit.split, []).append(known)
    return {
        "version": mm.__version__,
        "plan": dict(job.plan),
        "modalities": {
            name: {
                "modality": config.to_json(t.modality),
                "tokenizer": t.fingerprint,
                "licence": t.card.get("licence", "not said by its card"),
                "card": t.card,
            }
            for name, t in loaded.items()
        },
        "replaced_records": sorted(replaced),
        "splits": {
            split: {
                "examples": sum(s["examples"] for s in shards),
                "present": {n: sum(s["present"][n] for s in shards) for n in loaded},
                "shards": shards,
            }
            for split, shards in splits.items()
        },
    }


def clear(folder: Path) -> None:
    """Takes away what a finished folder does not need."""
    (folder / PARTS).rmtree(missing_ok=True)
    (folder / PLAN).unlink(missing_ok=True)


def said(manifest: dict[str, Any]) -> Iterator[str]:
    """A finished folder, for people."""
    for split, part in manifest["splits"].items():
        size = sum(f["bytes"] for s in part["shards"] for f in s["files"].values())
        there = ", ".join(f"{name} {count:,}" for name, count in part["present"].items())
        yield f"{split}: {part['examples']:,} examples in {len(part['shards'])} shards, {size / 2**20:.1f} MiB ({there})"
