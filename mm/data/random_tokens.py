"""Random tokens in any token space: to measure, and to compile, what there is no data for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils.epath import Path

from mm.data import Column
from mm.data.batches import TokenTable
from mm.data.records import CorruptLog
from mm.errors import UserError
from mm.space import Grid, Modality, Sequence, TokenSpace, Vector, Vocabulary
from mm.tokenizers import Tokenizer
from mm.tokenizers.given import Given


@dataclasses.dataclass(kw_only=True, slots=True)
class Tokens:
    """How one modality is written.

    Attributes:
      vocabulary: number of ids. height, width: of a grid; `length`: of a vector, or the most tokens of a `sequence`.
      sequence: tokens are read from left to right; the last id ends it.
    """

    vocabulary: int
    height: int = 0
    width: int = 0
    length: int = 0
    sequence: bool = False

    def modality(self, name: str) -> Modality:
        """Its place in a token space. Raises UserError where it has no size, or two."""
        if self.vocabulary < 2 or (self.height * self.width > 0) == (self.length > 0):
            raise UserError(
                f"config.data.source.kinds[{name!r}]: {self}: needs a vocabulary, and either height and width or a length"
            )
        eos = self.vocabulary - 1 if self.sequence else None
        layout = Grid(h=self.height, w=self.width) if self.height else Vector(n=self.length)
        return Modality(
            name=name,
            vocabulary=Vocabulary(name=name, size=self.vocabulary, eos=eos),
            layout=Sequence(max_len=self.length) if self.sequence else layout,
            order="left_to_right" if self.sequence else "parallel",
        )


@dataclasses.dataclass(kw_only=True, slots=True)
class RandomTokens:
    """A source whose rows are tokens already; see `mm.data.Source` and `mm.data.TokenSource`.

    Attributes:
      kinds: modality -> how it is written. rows: of each split. seed: decides them.
    """

    kinds: dict[str, Tokens]
    rows: int = 1024
    seed: int = 0

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.kinds)

    @property
    def space(self) -> TokenSpace:
        return TokenSpace(tuple(kind.modality(name) for name, kind in self.kinds.items()))

    def validate(self) -> None:
        """Raises UserError naming a setting that makes no sense."""
        if not self.kinds or self.rows < 1:
            raise UserError("config.data.source: needs kinds of tokens, and at least one row")
        assert self.space  # asks every kind

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Nothing to build."""

    def columns(self, split: str) -> Mapping[str, Column]:
        """No raw rows."""
        return {}

    def tokenizers(self) -> dict[str, Tokenizer]:
        """None: rows are tokens."""
        return {m.name: Given(m) for m in self.space.modalities}

    def tokens(self, split: str) -> dict[str, TokenTable]:
        """The split's rows: uniform ids, sequences of random length."""
        rng = np.random.default_rng((self.seed, ("train", "validation", "test").index(split)))
        return {m.name: self._table(m, rng) for m in self.space.modalities}

    def _table(self, m: Any, rng: np.random.Generator) -> TokenTable:
        size = m.vocabulary.size
        if m.vocabulary.eos is None:
            ids = rng.integers(0, size, (self.rows, m.size), np.int32)
            return TokenTable(ids, np.full(self.rows, m.size, np.int32))
        length = rng.integers(1, m.size + 1, self.rows).astype(np.int32)
        ids = rng.integers(0, size - 1, (self.rows, m.size), np.int32)
        return TokenTable(
            np.where(np.arange(m.size) < length[:, None] - 1, ids, m.vocabulary.eos), length
        )

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        rows = np.arange(self.rows)
        if split == "train":
            rows = np.random.default_rng((seed, epoch)).permutation(rows)
        return dict.fromkeys(self.kinds, rows) | {"group": rows.astype(np.int32)}
