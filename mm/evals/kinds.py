"""The sorts of rows an evaluation compares, as a config names them, and how their rows are found.

A modality may hold several sorts of rows (a word and a caption for one picture, a clean recording
and its noisy forms). A `Kind` names one of them, says how it is generated, judged and compared;
evaluators take tuples of kinds and know nothing else about a data set.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from etils.epath import Path

from mm import artefact
from mm.errors import UserError, nearest
from mm.evals.features import Flat
from mm.generate.sampling import Sampler

Reader = str | Callable[[Any], int | None]
Judge = Callable[[Any], np.ndarray]
"""n raw rows -> int64[readers, n]: the group that each reader recognises; -1 where it is none."""


@dataclasses.dataclass(kw_only=True, slots=True)
class Kind:
    """One sort of rows.

    Attributes:
      name: in the keys of results.
      modality: the column it is in; empty = its name.
      rows: which of the source's kinds of rows (see `Described.kinds`); empty = those that the
        examples name.
      judge: "path" or "path#fingerprint" of a judge's artefact, or a function of one raw row that
        returns its group or None. Of several, the lower figure counts. Needed for generation.
      facts: one raw row -> {fact: value}: what it shows, or states. Two kinds that have facts are
        also compared fact by fact.
      prompt: what generation is given of it, a template for its tokenizer's `encode_prompt`.
      sampler: how it is generated; None = as the task's settings say.
      front: raw rows -> float32[n, d], the front end of the features that compare generated with
        real rows; not used for strings.
    """

    name: str
    modality: str = ""
    rows: str = ""
    judge: Reader | tuple[Reader, ...] = ()
    facts: Callable[[Any], dict[str, Any]] | None = None
    prompt: str | None = None
    sampler: Sampler | None = None
    front: Callable[[Any], np.ndarray] = dataclasses.field(default_factory=Flat)

    @property
    def column(self) -> str:
        """Its modality."""
        return self.modality or self.name


def check(kinds: tuple[Kind, ...], split: str) -> None:
    """Checks kinds before any work, and that they are compared on rows that are not trained on.

    Raises:
      UserError: another split than validation or test, two kinds of one name, or a judge's file
        that is missing, damaged or another one than asked for.
    """
    if split not in ("validation", "test"):
        raise UserError(f"config.evals: split={split!r}: use 'validation' or 'test'")
    for i, kind in enumerate(kinds):
        if any(kind.name == other.name and kind != other for other in kinds[:i]):
            raise UserError(f"config.evals: two kinds are named {kind.name!r}; rename one")
        for reader in readers(kind):
            if isinstance(reader, str):
                _check_judge(reader)


def readers(kind: Kind) -> tuple[Reader, ...]:
    """What the kind is judged by; empty where it is not judged."""
    return kind.judge if isinstance(kind.judge, tuple) else (kind.judge,)


def tokenizer_of(data: Any, kind: Kind) -> Any:
    """The tokenizer of the kind's modality. Raises UserError if there is none."""
    if kind.column not in data.tokenizers:
        known = nearest(kind.column, data.tokenizers)
        raise UserError(f"config.evals: kind {kind.name!r}: no tokenizer {kind.column!r}{known}")
    return data.tokenizers[kind.column]


def _check_judge(reference: str) -> Path:
    path, _, pinned = reference.partition("#")
    meta, _ = artefact.read(Path(path))
    if pinned and not meta["fingerprint"].startswith(pinned):
        raise UserError(
            f"{path}: fingerprint {meta['fingerprint']} is not the {pinned} that the config asks "
            "for; restore the file, or change the config"
        )
    return Path(path)


def open_judge(kind: Kind) -> Judge:
    """The kind's judge as a function of many rows.

    Raises:
      UserError: it has none, or see `check`.
    """
    if not readers(kind):
        raise UserError(f"config.evals: kind {kind.name!r} has no judge; set Kind.judge")
    opened = [_open_reader(reader) for reader in readers(kind)]
    return lambda rows: np.stack([read(rows) for read in opened]).astype(np.int64)


def _open_reader(reader: Reader) -> Callable[[Any], np.ndarray]:
    if isinstance(reader, str):
        from mm.tasks import judge  # imports networks: only where one is used

        return judge.load(_check_judge(reader)).predict

    def read_rows(rows: Any) -> np.ndarray:
        found = [reader(row) for row in rows]
        return np.array([-1 if f is None else f for f in found], np.int64)

    return read_rows


def strictest(read: np.ndarray, group: np.ndarray) -> np.ndarray:
    """What the reader that agrees with `group` least often reads: the lower figure counts.

    Args:
      read: int64[readers, n].
      group: int[n].

    Returns:
      int64[n].
    """
    return read[(read == group).sum(1).argmin()]


@runtime_checkable
class Described(Protocol):
    """What a source may say of its rows beside `mm.data.Source`; without it, a row is an item."""

    def items(self, split: str, column: str) -> np.ndarray:
        """int64[rows], 0 .. : equal for forms of one real thing (augmentations of a recording)."""
        ...

    def kinds(self, split: str, column: str) -> np.ndarray:
        """Strings [rows]: the kind of each row, e.g. "clean" or "noisy"."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one kind in one split, one per example.

    Attributes:
      row: int64[n], in its column.
      item: int64[n], equal for rows of one real thing.
      group: int32[n], what the row should be recognised as.
      example: int64[n], its place in the split's order.
    """

    row: np.ndarray
    item: np.ndarray
    group: np.ndarray
    example: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, index: np.ndarray) -> "Rows":
        return Rows(self.row[index], self.item[index], self.group[index], self.example[index])

    def distinct(self) -> "Rows":
        """The first row of each item (in each group it occurs in), in order of appearance."""
        _, first = np.unique(np.stack([self.item, self.group]), axis=1, return_index=True)
        return self[np.sort(first)]


def find_rows(data: Any, split: str, kind: Kind) -> Rows:
    """The rows of `kind` in the examples of a split, in the order of epoch 0; absent ones left out.

    Where the kind names which rows it wants, an example's row is exchanged for the row of that kind
    of the same item: the caption of the picture whose word the example has.

    Raises:
      UserError: the source has no such column, or no such rows.
    """
    order = data.order(split, 0, 0)
    if kind.column not in order:
        known = nearest(kind.column, [c for c in order if c != "group"])
        raise UserError(
            f"config.evals: kind {kind.name!r}: no column {kind.column!r} in the data{known}"
        )
    row, group = np.asarray(order[kind.column]), np.asarray(order["group"])
    example = np.flatnonzero(row >= 0)
    row, group = row[example], group[example]
    if not isinstance(data.source, Described):
        if kind.rows:
            raise UserError(
                f"config.evals: kind {kind.name!r}: the source names no rows {kind.rows!r}"
            )
        return Rows(row, row, group, example)
    items = np.asarray(data.source.items(split, kind.column))
    if kind.rows:
        names = np.asarray(data.source.kinds(split, kind.column))
        of_item = np.full(items.max() + 1, -1, np.int64)
        wanted = np.flatnonzero(names == kind.rows)[
            ::-1
        ]  # backwards: the first row of an item stays
        of_item[items[wanted]] = wanted
        if not len(wanted):
            known = nearest(kind.rows, set(names.tolist()))
            raise UserError(
                f"config.evals: kind {kind.name!r}: no rows {kind.rows!r} in {kind.column!r}{known}"
            )
        found = of_item[items[row]]
        row, group, example = row[found >= 0], group[found >= 0], example[found >= 0]
        return Rows(found[found >= 0], items[row], group, example)
    return Rows(row, items[row], group, example)


def read(data: Any, split: str, kind: Kind, rows: Rows) -> Any:
    """Raw rows: an array [n, ...] or a list of strings."""
    return data.raw(split)[kind.column][rows.row]


def tokens(data: Any, split: str, kind: Kind, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """The rows' (ids int32[n, size], length int32[n])."""
    ids, length = data.tokens(split)[kind.column].take(rows.row)
    return np.asarray(ids, np.int32), np.asarray(length, np.int32)


def take(raw: Any, index: np.ndarray) -> Any:
    """Raw rows by index, whether they are an array or a list."""
    return raw[index] if isinstance(raw, np.ndarray) else [raw[i] for i in index]


def contents(raw: Any, rows: Rows) -> np.ndarray:
    """int64[n]: equal for equal inputs. Strings are what they say, other rows their items."""
    if isinstance(raw, np.ndarray):
        return rows.item
    return np.unique(np.asarray(raw, dtype=np.str_), return_inverse=True)[1]


def choose(rows: Rows, count: int, seed: int) -> Rows:
    """`count` random examples in which every item occurs equally often, give or take one."""
    order = np.random.default_rng(seed).permutation(len(rows))
    items = rows.item[order]
    by_item = np.argsort(items, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(items[by_item]) != 0])
    sizes = np.diff(np.r_[starts, len(items)])
    occurrence = np.empty(len(items), np.int64)
    occurrence[by_item] = np.arange(len(items)) - np.repeat(starts, sizes)
    return rows[order[np.argsort(occurrence, kind="stable")[:count]]]
