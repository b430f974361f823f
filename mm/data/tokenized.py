"""Training on what --mode=tokenize has written: one folder, or several mixed by weight. See docs/tokenize.md.

Which examples make batch i is a function of (seed, i), so a run goes on at the same place with any number of threads
and hosts. Training examples are shuffled so that blocks that are read together are used together: blocks in random
order, and examples at random among those of a window.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np
from etils.epath import Path

from mm import progress
from mm.data import Column, check_modalities
from mm.data.batches import Table
from mm.data.records import CorruptLog
from mm.data.shard_table import BLOCK, ShardTable, block_starts
from mm.data.token_files import Form, Manifest, Shard, facts, open_reader, read_index
from mm.errors import UserError
from mm.paths import copied
from mm.space import TokenSpace
from mm.tokenizers import Tokenizer
from mm.tokenizers.given import given


@dataclasses.dataclass(frozen=True, slots=True)
class Examples:
    """One split: row i of every table is example i.

    Attributes:
      tables: by modality. present: bool[n] by modality. group: int32[n].
      bounds: int64[folders + 1], where each folder's examples begin.
      starts: int64[blocks], where each block begins.
    """

    tables: Mapping[str, Any]
    present: Mapping[str, np.ndarray]
    group: np.ndarray
    bounds: np.ndarray
    starts: np.ndarray

    def __len__(self) -> int:
        return len(self.group)

    def rows(self, examples: np.ndarray) -> dict[str, np.ndarray]:
        """See `mm.data.Source.order`."""
        there = {n: np.where(p[examples], examples, -1) for n, p in self.present.items()}
        return there | {"group": self.group[examples]}

    def shuffled(self, rng: np.random.Generator, window: int) -> np.ndarray:
        """All examples: blocks in random order, examples at random among the `window` next ones."""
        ends = np.append(self.starts[1:], len(self))
        blocks = rng.permutation(len(self.starts))
        examples = np.concatenate([np.arange(int(self.starts[b]), int(ends[b])) for b in blocks])
        for start in range(0, len(examples), window):
            rng.shuffle(examples[start : start + window])
        return examples

    def mended(self, rows: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:  # fmt: skip
        """Rows in which no record of these modalities is unreadable.

        An example that has such a record gives its place to the next one of its folder that has none: all of it, as
        parts of two examples do not belong together.

        Raises:
          UserError: see `ShardTable.take`; or no example can be read.
        """
        bad = np.zeros(len(rows["group"]), bool)
        for name in names:
            there = rows[name] >= 0
            bad[there] |= self.tables[name].bad(rows[name][there])
        if not bad.any():
            return dict(rows)
        made = {name: np.array(part) for name, part in rows.items()}
        for i in np.flatnonzero(bad).tolist():
            example = self._next(max(int(rows[name][i]) for name in names), names)
            for name, part in self.rows(np.array([example])).items():
                made[name][i] = part[0]
        return made

    def _next(self, example: int, names: tuple[str, ...]) -> int:
        folder = int(np.searchsorted(self.bounds, example, "right")) - 1
        first, count = int(self.bounds[folder]), int(np.diff(self.bounds)[folder])
        for step in range(1, count):
            row = np.array([first + (example - first + step) % count])
            there = [n for n in names if self.present[n][row[0]]]
            if there and not any(self.tables[n].bad(row)[0] for n in there):
                return int(row[0])
        raise UserError("config.data.source: no example can be read; restore the files")


class TokenFolders:
    """What a folder and a mixture share, see `mm.data.TokenSource`: their `open` fills `_splits`.

    Attributes:
      forms: modality -> how it is written.
    """

    forms: Mapping[str, Form]
    _splits: dict[str, Examples]

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.forms)

    @property
    def space(self) -> TokenSpace:
        return TokenSpace(tuple(form.modality for form in self.forms.values()))

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the tokenizers that wrote the tokens, by modality."""
        return {name: form.fingerprint for name, form in self.forms.items()}

    def tokenizers(self) -> dict[str, Tokenizer]:
        """None: rows are tokens. `config.data.tokenizers` may name those that wrote them."""
        return {name: given(form.modality) for name, form in self.forms.items()}

    def check_tokenizers(self, loaded: Mapping[str, Tokenizer]) -> None:
        """Raises UserError unless the tokens were written by these tokenizers (those of `config.data.tokenizers`)."""
        for name, tokenizer in loaded.items():
            form = self.forms[name]
            if (tokenizer.fingerprint, tokenizer.modality) != (form.fingerprint, form.modality):
                raise UserError(
                    f"config.data.tokenizers[{name!r}]: the tokens of {name!r} in {self.place(name)} were written by the "
                    f"tokenizer {form.fingerprint}, this one is {tokenizer.fingerprint}; name that one, or tokenize "
                    "anew with this one (--mode=tokenize)"
                )

    def place(self, name: str) -> str:
        """The folder of a modality's tokens, for messages."""
        raise NotImplementedError

    def columns(self, split: str) -> Mapping[str, Column]:
        """No raw rows: whoever asks for one is told so."""
        return _NoRows()

    def tokens(self, split: str) -> Mapping[str, Table]:
        """Tables on disk."""
        return self._splits[split].tables

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        """See `mm.data.Source`."""
        found = self._splits[split]
        if split != "train":
            return found.rows(np.arange(len(found)))
        return found.rows(self.drawn(seed, epoch))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        """The training examples of an epoch, int64[n]."""
        raise NotImplementedError

    def mended(self, split: str, rows: Mapping[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:  # fmt: skip
        """See `Examples.mended`."""
        return self._splits[split].mended(rows, names)


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Tokenized(TokenFolders):
    """A folder of tokens. See `mm.data.TokenSource`.

    Attributes:
      path: the folder that --mode=tokenize wrote; one that lies elsewhere (gs://) is copied to the cache.
      only: its modalities that are used; empty = all. Files of others are not touched.
      window: training examples that are shuffled among each other; twice as many are held in memory.
    """

    path: str
    only: tuple[str, ...] = ()
    window: int = 16_384

    def validate(self) -> None:
        """Raises UserError naming what is wrong with the folder, or a setting that makes no sense."""
        assert self.forms
        if self.window < 1:
            raise UserError(f"config.data.source.window={self.window}: must be positive")

    @functools.cached_property
    def manifest(self) -> Manifest:
        """Raises UserError: see `Manifest`."""
        return Manifest(Path(self.path).expanduser())

    @functools.cached_property
    def forms(self) -> dict[str, Form]:  # pyright: ignore[reportIncompatibleVariableOverride]
        found = self.manifest.forms
        check_modalities(tuple(self.only or found), tuple(found))
        return {name: found[name] for name in self.only or found}

    def mark(self, names: tuple[str, ...]) -> str:
        """16 hex digits of what is trained on, if these modalities are."""
        return self.manifest.mark(names)

    def place(self, name: str) -> str:
        return self.path

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Reads the index; records are read when they are asked for.

        Raises:
          UserError: see `Manifest`; a file is missing, or not the manifest's.
        """
        self.validate()
        folder = self._near(cache)
        self.manifest.check_sizes(folder, self.modalities)
        self._splits = {
            split: self._open_split(folder, shards, corrupt)
            for split, shards in self.manifest.splits.items()
        }

    def _near(self, cache: Path) -> Path:
        return copied(self.manifest.folder, cache / "tokenized" / self.mark(self.modalities))

    def _open_split(self, folder: Path, shards: list[Shard], log: CorruptLog) -> Examples:
        parts = [read_index(shard, folder) for shard in shards]
        index = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        present = {name: index[f"present.{name}"].astype(bool) for name in self.modalities}
        keep = 2 * -(-self.window // BLOCK) + 2
        tables = {
            name: ShardTable(folder, shards, form, present[name], log, keep)
            for name, form in self.forms.items()
        }
        bounds = np.array([0, len(index["group"])])
        return Examples(tables, present, index["group"], bounds, block_starts(shards))

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        return self._splits["train"].shuffled(np.random.default_rng([seed, epoch]), self.window)

    def verify(self, cache: Path) -> Iterator[str]:
        """Compares every file with its checksum, a line per split and modality. Raises UserError for the first that differs."""
        folder = self._near(cache)
        self.manifest.check_sizes(folder, self.modalities)
        for split, shards in self.manifest.splits.items():
            n = sum(s.examples for s in shards)
            yield f"{split}: {n:,} examples in {len(shards)} shards"
            for name, form in self.forms.items():
                for shard in progress.track(shards, f"checking {split}/{name}"):
                    _compare(shard, folder, name)
                here = sum(s.present[name] for s in shards)
                yield f"  {name}: in {here:,} examples, {form.modality.size} tokens, by tokenizer {form.fingerprint}"


def _compare(shard: Shard, folder: Path, name: str) -> None:
    path = shard.path(folder, name)
    if facts(path) == shard.files[name]:
        return
    reader, where = open_reader(str(path)), ""
    for i in range(reader.num_records()):
        try:
            reader.read([i])
        except Exception:  # the library's errors have no class of their own
            where = f", record {i}"
            break
    raise UserError(
        f"{path}{where}: not what the manifest's sha256 says; restore the file, or tokenize anew"
    )


class _NoRows(dict[str, Any]):
    """Raw rows of a folder that has none."""

    def __missing__(self, name: str) -> NoReturn:
        raise UserError(
            f"config.data.source: holds tokens, and no raw rows of {name!r}; leave out what needs these (evaluators of "
            "raw rows, tasks that tokenize), or name the source that the tokens were made of"
        )
