"""Examples in 4M's tokens, and the token space of one of its models with whatever modalities were added to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils.epath import Path

from mm import artefact
from mm.data import Column
from mm.data.batches import TokenTable
from mm.data.random_tokens import Tokens
from mm.data.records import CorruptLog
from mm.errors import UserError
from mm.space import Dense, Modality, TokenSpace
from mm.tokenizers import Tokenizer
from mm.tokenizers.given import given
from mm.weights import m4_modalities


@dataclasses.dataclass(kw_only=True)
class Tokens4M:
    """See `mm.data.TokenSource`.

    Attributes:
      inputs, targets: 4M's names of what the model reads and predicts.
      image_size, patch_size, t5_dim, shared_text, overrides: see `m4_modalities.Sizes`.
      added: modalities that are not 4M's, behind its own.
      tables: split -> files of tokens, one for each modality, as `write_table` makes them; a modality without one is absent.
    """

    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    image_size: int = 224
    patch_size: int = 16
    t5_dim: int = 4096
    shared_text: bool = False
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    added: dict[str, Tokens] = dataclasses.field(default_factory=dict)
    tables: dict[str, dict[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.space.names

    @property
    def space(self) -> TokenSpace:
        sizes = ("image_size", "patch_size", "t5_dim", "shared_text", "overrides")
        known = m4_modalities.space(
            list(self.inputs), list(self.targets), **{n: getattr(self, n) for n in sizes}
        )
        new = tuple(kind.modality(name) for name, kind in self.added.items())
        return TokenSpace((*known.modalities, *new))

    def tokenizers(self) -> dict[str, Tokenizer]:
        """None: rows are tokens, and of pixels pictures."""
        return {m.name: given(m) for m in self.space.modalities}

    def validate(self) -> None:
        """Raises UserError naming a modality or a size that 4M has not."""
        assert self.space

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Nothing to build; a split's files are read when they are first asked for."""
        self._read: dict[str, dict[str, TokenTable]] = {}

    def _files(self, split: str) -> dict[str, TokenTable]:
        if split not in self._read:
            paths = self.tables.get(split, {})
            self._read[split] = {n: read_table(Path(p)) for n, p in paths.items()}
        return self._read[split]

    def columns(self, split: str) -> Mapping[str, Column]:
        """No raw rows."""
        return {}

    def tokens(self, split: str) -> dict[str, TokenTable]:
        """The split's tables; of a modality that has none a single row, which no example names.

        Raises:
          UserError: there are none, or they differ in length.
        """
        found = self._files(split)
        if len({len(t.length) for t in found.values()}) != 1:
            raise UserError(
                f"config.data.source.tables[{split!r}]: needs files of tokens, all of as many rows"
            )
        return {m.name: found.get(m.name) or nothing(m) for m in self.space.modalities}

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        here = self._files(split)
        rows = np.arange(min(map(len, here.values()), default=0))
        if split == "train":
            rows = np.random.default_rng((seed, epoch)).permutation(rows)
        absent = np.full_like(rows, -1)
        return {n: rows if n in here else absent for n in self.modalities} | {"group": rows.astype(np.int32)}  # fmt: skip


def nothing(m: Modality) -> TokenTable:
    """A table of one row, which is absent."""
    if isinstance(m.layout, Dense):
        return TokenTable(np.zeros((1, *m.layout.shape), np.float32), np.zeros(1, np.int32))
    return TokenTable(np.zeros((1, m.size), np.int32), np.zeros(1, np.int32))


def write_table(path: Path, table: TokenTable) -> None:
    """Tokens (or dense values) and lengths of some rows as one file."""
    artefact.write(path, "tokens", {}, {"ids": table.ids, "length": table.length}, {})


def read_table(path: Path) -> TokenTable:
    """What `write_table` wrote. Raises UserError: see `artefact.read`."""
    _, arrays = artefact.read(path)
    return TokenTable(arrays["ids"], arrays["length"])
