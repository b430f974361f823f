"""One shard of all modalities: read, checked, cropped, tokenized, written. The same bytes whoever does it, and when."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from etils.epath import Path

from mm import config, tokenizers
from mm.data.records import CorruptLog
from mm.data.token_files import INDEX, Form, Shard, write_index, write_note, write_records
from mm.errors import UserError
from mm.pipeline.column import Writing
from mm.pipeline.plan import Job, Unit


class Worker:
    """Source and tokenizers, opened once."""

    def __init__(self, job: Job):
        """Raises UserError: as the source and the tokenizers raise it; or a tokenizer was exchanged meanwhile."""
        self.job, self.folder = job, Path(job.folder)
        data: config.Data = config.from_json(job.data)
        self.source, self.crops = data.source, data.crops
        self.tokenizers = tokenizers.load_all(data.tokenizers)
        for name, wanted in job.plan["tokenizers"].items():
            if self.tokenizers[name].fingerprint != wanted:
                raise UserError(
                    f"config.data.tokenizers[{name!r}]: is {self.tokenizers[name].fingerprint} here, {wanted} where it "
                    "was started; give all workers the same files"
                )
        self.forms = {n: Form(t.modality, t.fingerprint) for n, t in self.tokenizers.items()}
        self.log = CorruptLog(data.corrupt_limit)
        self.source.open(Path(job.cache), self.log)
        self._rows: dict[str, Mapping[str, np.ndarray]] = {}

    def shard(self, unit: Unit) -> None:
        """Writes a shard's files, and last what the manifest will say of it.

        Raises:
          UserError: a row that is not what its tokenizer takes, named by file and record.
        """
        example, crop = self._numbers(unit)
        rows = self.rows(unit)
        present = {name: rows[name] >= 0 for name in self.forms}
        boxes = None
        if self.crops and unit.split == "train":
            distinct, place = np.unique(example, return_inverse=True)
            boxes = self.crops.draw(self.job.plan["seed"], distinct)[place, crop]
        here = {name: int(p.sum()) for name, p in present.items()}
        shard = Shard(unit.split, unit.number, unit.count, len(example), {}, here)
        files = {}
        for name, form in self.forms.items():
            parts = self.writing(unit.split, name).records(rows[name], boxes)
            files[name] = write_records(shard.path(self.folder, name), form, parts)
        files[INDEX] = write_index(shard.path(self.folder, INDEX), rows["group"], present)
        shard = dataclasses.replace(shard, files=files)
        write_note(unit.path(self.folder), shard.json() | {"replaced": sorted(self.log.found)})

    def rows(self, unit: Unit) -> dict[str, np.ndarray]:
        """The source's rows of a shard's examples, see `mm.data.Source.order`."""
        example, _ = self._numbers(unit)
        return {name: part[example] for name, part in self._order(unit.split).items()}

    def _numbers(self, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
        """The source's example, and the number of the crop, of each example of a shard."""
        first, end = self.job.bounds(unit)
        count = self.crops.count if self.crops and unit.split == "train" else 1
        example, crop = np.divmod(np.arange(first, end, dtype=np.int64), count)
        return example, crop

    def _order(self, split: str) -> Mapping[str, np.ndarray]:
        """Which rows make the examples of a split, of all passes."""
        if split not in self._rows:
            seed, passes = self.job.plan["seed"], self.job.plan["passes"] if split == "train" else 1
            epochs = [self.source.order(split, seed, epoch) for epoch in range(passes)]
            self._rows[split] = {n: np.concatenate([e[n] for e in epochs]) for n in epochs[0]}
        return self._rows[split]

    def writing(self, split: str, name: str) -> Writing:
        """A column of the source with its tokenizer."""
        column, crops = self.source.columns(split)[name], self.crops
        return Writing(f"{name}/{split}", self.forms[name], column, self.tokenizers[name], crops)
