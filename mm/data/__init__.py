"""From records to batches: batch i is a pure function of (seed, i). This file is the contract.

A `Source` (one per file in `data_pipelines/`) offers raw columns per split and says which rows make
an example; `mm.data.opened.open_data` tokenizes the columns once, and Grain serves the batches.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils.epath import Path

from mm.data.records import CorruptLog
from mm.errors import UserError, nearest
from mm.space import TokenSpace


class Column(Protocol):
    """The raw rows of one modality in one split.

    Attributes:
      fingerprint: of the content; names the cache of its tokens.
    """

    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray) -> Any:
        """Rows int[n] -> n raw values: an array [n, ...], or a list of strings."""
        ...


class Source(Protocol):
    """A data set: a dataclass whose fields are its settings.

    Attributes:
      modalities: names of its columns.

    One that has a `licence: str` (not among its settings) is asked for it by what writes its contents elsewhere.
    """

    modalities: tuple[str, ...]

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Builds what is built at first use below `cache`; afterwards columns can be read."""
        ...

    def columns(self, split: str) -> Mapping[str, Column]:
        """Raw columns of `train`, `validation` or `test`, by modality."""
        ...

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        """Which rows make the examples of one epoch.

        Returns:
          per column int64[n] (-1 = absent), and `group` int32[n].

        A pure function. Every epoch has the same n. `validation` and `test` ignore seed and epoch:
        fixed pairs.
        """
        ...


class TokenSource(Source, Protocol):
    """A source whose rows are tokens already: it needs no tokenizers.

    Attributes:
      space: how its modalities are written.
    """

    space: TokenSpace

    def tokens(self, split: str) -> Mapping[str, Any]:
        """All rows of a split as `mm.data.batches.Table`, by modality."""
        ...

    def tokenizers(self) -> Mapping[str, Any]:
        """What a user's own rows become tokens by, as `mm.tokenizers.Tokenizer`, by modality."""
        ...


def check_modalities(chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    """Raises UserError unless a source's setting `modalities` names some of `known`, each once."""
    for name in chosen:
        if name not in known:
            raise UserError(
                f"config.data.source.modalities: no {name!r} here{nearest(name, known)}"
            )
    if not chosen or len(set(chosen)) != len(chosen):
        raise UserError(
            f"config.data.source.modalities={chosen}: name at least one of {known}, and none twice"
        )
