"""Several folders of tokens, mixed by weight."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from etils.epath import Path

from mm.data.columns import digest
from mm.data.records import CorruptLog
from mm.data.token_files import Form
from mm.data.tokenized import Examples, TokenFolders, Tokenized
from mm.errors import UserError


# No slots: what `open` finds is kept beside the settings, not among them.
@dataclasses.dataclass(kw_only=True)
class Mixture(TokenFolders):
    """Folders of tokens as one. See `mm.data.TokenSource`.

    An epoch has as many examples as all folders together, of each folder its share by weight: a small folder with a
    large weight is gone through several times in it, each time in another order, and since the first step none of its
    examples has been used more than once more than another. Validation and test are those of all folders, one after the other. What a folder does not have is
    absent in its examples.

    Attributes:
      parts: name -> folder. weights: name -> its share of the training examples, in any unit; all 1 if empty.
      same_groups: examples of one group number belong together across folders (class labels); otherwise no two of
        different folders do.
    """

    parts: dict[str, Tokenized]
    weights: dict[str, float] = dataclasses.field(default_factory=dict)
    same_groups: bool = False

    def validate(self) -> None:
        """Raises UserError naming a weight that makes no sense, or two folders that do not fit together."""
        for part in self.parts.values():
            part.validate()
        named = self.weights or dict.fromkeys(self.parts, 1.0)
        if not self.parts or set(named) != set(self.parts) or min(named.values()) <= 0:
            raise UserError(
                f"config.data.source.weights={self.weights}: give each of {', '.join(self.parts)} one above 0"
            )
        assert self.forms

    @functools.cached_property
    def forms(self) -> dict[str, Form]:  # pyright: ignore[reportIncompatibleVariableOverride]
        found: dict[str, tuple[Form, str]] = {}
        for part in self.parts.values():
            for name, form in part.forms.items():
                known, where = found.setdefault(name, (form, part.path))
                if known != form:
                    raise UserError(
                        f"config.data.source: the tokens of {name!r} were written by two tokenizers: {known.fingerprint} in "
                        f"{where}, {form.fingerprint} in {part.path}; tokenize one of them anew, or leave {name!r} out of it (only)"
                    )
        return {name: form for name, (form, _) in found.items()}

    def mark(self, names: tuple[str, ...]) -> str:
        """See `Tokenized.mark`."""
        own = ((p, [n for n in names if n in p.forms]) for p in self.parts.values())
        return digest(*(part.mark(tuple(there)) for part, there in own))

    def place(self, name: str) -> str:
        return next(part.path for part in self.parts.values() if name in part.forms)

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Opens all folders. Raises UserError: see `Tokenized.open`."""
        self.validate()
        for part in self.parts.values():
            part.open(cache, corrupt)
        splits = [split for part in self.parts.values() for split in part._splits]
        self._splits = {split: self._joined(split) for split in dict.fromkeys(splits)}

    def _joined(self, split: str) -> Examples:
        parts = [p._splits[split] for p in self.parts.values() if split in p._splits]
        bounds = np.cumsum([0, *map(len, parts)])
        nothing = [np.zeros(len(part), bool) for part in parts]
        present = {
            name: np.concatenate([p.present.get(name, z) for p, z in zip(parts, nothing, strict=True)])
            for name in self.forms
        }  # fmt: skip
        tables = {
            name: _Joined([p.tables.get(name) for p in parts], bounds, form.modality.size)
            for name, form in self.forms.items()
        }
        groups, free = [], 0
        for part in parts:
            groups.append(part.group + free)
            free += 0 if self.same_groups else int(part.group.max(initial=-1)) + 1
        starts = [p.starts + first for p, first in zip(parts, bounds, strict=False)]
        return Examples(
            tables, present, np.concatenate(groups).astype(np.int32), bounds, np.concatenate(starts)
        )

    def drawn(self, seed: int, epoch: int) -> np.ndarray:
        parts = {n: p for n, p in self.parts.items() if "train" in p._splits}
        sizes = np.array([len(p._splits["train"]) for p in parts.values()])
        weights = np.array([self.weights.get(name, 1.0) for name in parts])
        counts = shares(weights, int(sizes.sum()))
        rng = np.random.default_rng([seed, epoch])
        of = rng.permutation(np.repeat(np.arange(len(parts)), counts))
        examples = np.zeros(len(of), np.int64)
        for i, (part, size, count) in enumerate(zip(parts.values(), sizes, counts, strict=True)):
            number = epoch * count + np.arange(count)  # of all epochs of this folder
            drawn = [
                part.drawn(seed, e)[number[number // size == e] - e * size]
                for e in np.unique(number // size).tolist()
            ]
            first = int(sizes[:i].sum())
            examples[of == i] = first + np.concatenate([np.zeros(0, np.int64), *drawn])
        return examples

    def verify(self, cache: Path) -> Iterator[str]:
        """See `Tokenized.verify`."""
        for name, part in self.parts.items():
            yield f"{name}: {part.path}"
            yield from part.verify(cache)


def shares(weights: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers int64[n] with the sum `total`, each less than 1 from its weight's share."""
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    most = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[most] += 1
    return counts


class _Joined:
    """One modality of several folders; None where a folder lacks it. See `mm.data.batches.Table`."""

    def __init__(self, tables: list[Any], bounds: np.ndarray, size: int):
        self.tables, self.bounds, self.size = tables, bounds, size

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ids, length = np.zeros((len(rows), self.size), np.int32), np.zeros(len(rows), np.int32)
        for table, at, inside in self._places(rows):
            ids[at], length[at] = table.take(inside)
        return ids, length

    def bad(self, rows: np.ndarray) -> np.ndarray:
        found = np.zeros(len(rows), bool)
        for table, at, inside in self._places(rows):
            found[at] = table.bad(inside)
        return found

    def _places(self, rows: np.ndarray) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
        number = np.searchsorted(self.bounds, rows, "right") - 1
        for i in np.unique(number).tolist():
            at = np.flatnonzero(number == i)
            yield self.tables[i], at, rows[at] - self.bounds[i]
