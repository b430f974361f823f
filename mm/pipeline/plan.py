"""What --mode=tokenize makes of a config: enough for a worker on any machine, and for a second start to know its folder."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from etils.epath import Path

from mm import config, tokenizers
from mm.data.columns import digest
from mm.data.opened import load_tokenizers
from mm.data.records import CorruptLog
from mm.data.token_files import MANIFEST
from mm.errors import UserError
from mm.workdir import read_json, write_json

PLAN = "plan.json"
PARTS = "parts"


@dataclasses.dataclass(frozen=True, slots=True)
class Unit:
    """What one worker does at a time: shard `number` of `count` of a split, of all modalities."""

    split: str
    number: int
    count: int

    def path(self, folder: Path, ending: str = "json") -> Path:
        """What is known of it once it is finished; with the ending "wrong", why it could not be."""
        return folder / PARTS / f"{self.split}-{self.number:05d}.{ending}"


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says of it.

    Attributes:
      splits: of the source. shard_size: examples in a shard, at most.
      passes: epochs of the training split that are written, one after the other: where a source draws captions,
        partners or augmented forms anew in each, more than one.
    """

    splits: tuple[str, ...] = ("train", "validation", "test")
    shard_size: int = 8192
    passes: int = 1

    def check(self) -> None:
        """Raises UserError for a number that makes no sense."""
        if min(self.shard_size, self.passes) < 1:
            raise UserError(
                f"--shard_size={self.shard_size}, --passes={self.passes}: must be positive"
            )


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """All that a worker has to know; plain values, so that it can be sent.

    Attributes:
      folder: where shards are written. cache: where the source builds what it builds.
      data: `config.Data` as JSON. plan: what decides the contents of the folder.
    """

    folder: str
    cache: str
    data: Mapping[str, Any]
    plan: Mapping[str, Any]

    def units(self) -> Iterator[Unit]:
        """All shards, split by split."""
        for split, examples in self.plan["examples"].items():
            count = -(-examples // self.plan["shard_size"])
            yield from (Unit(split, i, count) for i in range(count))

    def bounds(self, unit: Unit) -> tuple[int, int]:
        """First and behind the last example of a shard; their sizes differ by one at most."""
        total = self.plan["examples"][unit.split]
        return total * unit.number // unit.count, total * (unit.number + 1) // unit.count


def make(exp: config.Experiment, folder: Path, cache: Path, wanted: Wanted) -> Job:
    """Opens the data to see what there is.

    Raises:
      UserError: nothing to tokenize by; a modality or split that the source has not; as the source's `open` raises it.
    """
    data, crops = exp.data, exp.data.crops
    if not data.tokenizers:
        raise UserError(
            "--mode=tokenize: config.data.tokenizers names none; name one for each modality"
        )
    if hasattr(data.source, "tokens"):
        raise UserError(
            "--mode=tokenize: config.data.source holds tokens already; name one of raw rows"
        )
    wanted.check()
    for name in (*crops.pictures, *crops.labels) if crops else ():
        if name not in data.tokenizers:
            raise UserError(f"config.data.crops: {name!r} has no tokenizer; take it out")
    loaded = load_tokenizers(data)
    tokenizers.space_of(loaded)
    source, log = data.source, CorruptLog(data.corrupt_limit)
    source.open(cache, log)
    examples, rows = {}, {}
    for split in wanted.splits:
        count = len(source.order(split, exp.seed, 0)["group"])
        if not count:
            raise UserError(f"--splits: {split!r} has no examples; leave it out")
        times = wanted.passes * (crops.count if crops else 1) if split == "train" else 1
        examples[split] = count * times
        columns = source.columns(split)
        rows[split] = digest(*(f"{name} {columns[name].fingerprint}" for name in loaded))
    plan = {
        "source": config.to_json(source),
        "licence": getattr(source, "licence", "not said by the source"),
        "rows": rows,
        "tokenizers": {name: t.fingerprint for name, t in loaded.items()},
        "crops": config.to_json(crops),
        "seed": exp.seed,
        "examples": examples,
        "shard_size": wanted.shard_size,
        "passes": wanted.passes,
    }
    kept = config.to_json(dataclasses.replace(data, missing=None))
    return Job(str(folder), str(cache), kept, plan)


def claim(job: Job) -> bool:
    """Makes the folder that of this plan, or checks that it is; whether it is finished.

    Raises:
      UserError: it is another plan's, or holds something else.
    """
    folder = Path(job.folder)
    finished = (folder / MANIFEST).exists()
    mark = folder / (MANIFEST if finished else PLAN)
    if mark.exists():
        before = read_json(mark)["plan"]
        for field, (there, now) in config.differences(before, dict(job.plan)).items():
            raise UserError(
                f"{folder}: holds the tokens of other settings ({field}: {str(there)[:60]} there, {str(now)[:60]} now); "
                "use another --out"
            )
        return finished
    others = [p.name for p in folder.iterdir() if p.name != "running"] if folder.exists() else []
    if [name for name in others if not name.endswith(".partial")]:
        raise UserError(f"{folder}: exists and is no folder of tokens; use another --out")
    write_json(mark, {"plan": dict(job.plan)})
    return False
