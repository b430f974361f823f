"""The shared token space: the one table that model, masking, generation and evaluation read.

A `Modality` says how one kind of data is written in tokens; a `TokenSpace` lays the vocabularies of
all modalities end to end on one line of ids. Modalities may share a vocabulary.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Rows = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Path of an array -> which of its rows lie where once the space has grown: (in the old one, in the new one)."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """A range of ids. `eos` ends a sequence (None where lengths are fixed)."""

    name: str
    size: int
    eos: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """Tokens at the places of a (t, h, w) grid, row-major; all places are always filled."""

    t: int = 1
    h: int = 1
    w: int = 1

    @property
    def size(self) -> int:
        return self.t * self.h * self.w


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sequence:
    """Up to `max_len` tokens in reading order, the last of them the vocabulary's `eos`.

    Attributes:
      places: positions that its tokens may have, where these are more than `max_len`; 0 = as many.
      wraps: queries at this position and behind it are given the first one, as 4M does; 0 = none is.
    """

    max_len: int
    places: int = 0
    wraps: int = 0

    @property
    def size(self) -> int:
        return self.max_len


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Vector:
    """`n` tokens without geometry (the codes of one global vector)."""

    n: int

    @property
    def size(self) -> int:
        return self.n


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Dense:
    """Input-only values (pixels, features) of `shape` [tokens, features]; never predicted, no ids.

    Attributes:
      grid: (h, w) where the tokens have places in a grid, row-major. bias: of the linear layer that reads them.
      places: as of `Sequence`.
    """

    shape: tuple[int, int]
    grid: tuple[int, int] | None = None
    bias: bool = False
    places: int = 0

    @property
    def size(self) -> int:
        return self.shape[0]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """One kind of data in the token space.

    Attributes:
      vocabulary: whose ids its tokens have; None for a `Dense` layout.
      order: how generation reveals its tokens: `parallel` (several places at a time) or `left_to_right`.
      seen, predicted: whether it can be an input, and a target.
    """

    name: str
    vocabulary: Vocabulary | None
    layout: Grid | Sequence | Vector | Dense
    order: str = "parallel"
    seen: bool = True
    predicted: bool = True

    def __post_init__(self):
        dense = isinstance(self.layout, Dense)
        if dense != (self.vocabulary is None) or (dense and self.predicted):
            raise ValueError(
                f"modality {self.name!r}: what is dense has no vocabulary and is not predicted, all else has one"
            )
        if not (self.seen or self.predicted):
            raise ValueError(f"modality {self.name!r}: neither seen nor predicted")

    @property
    def size(self) -> int:
        """Most tokens, the length of its id arrays."""
        return self.layout.size

    @property
    def places(self) -> int:
        """Positions that its tokens may have."""
        return max(self.size, getattr(self.layout, "places", 0))


@dataclasses.dataclass(frozen=True, slots=True)
class TokenSpace:
    """All modalities of one model, in order, and the id line under them."""

    modalities: tuple[Modality, ...]

    def __post_init__(self):
        names = [m.name for m in self.modalities]
        if len(set(names)) != len(names):
            raise ValueError(f"two modalities share a name: {names}")
        by_name: dict[str, Vocabulary] = {}
        for m in self.modalities:
            if m.vocabulary and by_name.setdefault(m.vocabulary.name, m.vocabulary) != m.vocabulary:
                raise ValueError(
                    f"vocabulary {m.vocabulary.name!r} is given twice with different contents"
                )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.modalities)

    def __getitem__(self, name: str) -> Modality:
        return self.modalities[self.index(name)]

    def vocabulary(self, name: str) -> Vocabulary:
        """The vocabulary of a modality that has one.

        Raises:
          ValueError: the modality is dense.
        """
        found = self[name].vocabulary
        if found is None:
            raise ValueError(f"modality {name!r} is dense: it has no ids")
        return found

    def index(self, name: str) -> int:
        return self.names.index(name)

    @property
    def offsets(self) -> dict[str, int]:
        """Where each vocabulary's range begins on the id line, by vocabulary name."""
        offsets, end = {}, 0
        for m in self.modalities:
            if m.vocabulary and m.vocabulary.name not in offsets:
                offsets[m.vocabulary.name] = end
                end += m.vocabulary.size
        return offsets

    def offset(self, name: str) -> int:
        """Where the ids of modality `name` begin on the id line."""
        vocabulary = self[name].vocabulary
        return self.offsets[vocabulary.name] if vocabulary else 0

    @property
    def size(self) -> int:
        """Length of the id line: the sizes of all distinct vocabularies."""
        return sum(
            {m.vocabulary.name: m.vocabulary.size for m in self.modalities if m.vocabulary}.values()
        )

    @property
    def places(self) -> int:
        """Places of all modalities together."""
        return sum(m.places for m in self.modalities)

    @property
    def starts(self) -> dict[str, int]:
        """Where each modality's places begin among all places."""
        sizes = [m.places for m in self.modalities]
        return {m.name: sum(sizes[:i]) for i, m in enumerate(self.modalities)}

    def only(self, role: str) -> "TokenSpace":
        """The modalities with ids that are `seen`, or `predicted`."""
        return TokenSpace(tuple(m for m in self.modalities if m.vocabulary and getattr(m, role)))

    def per_place(self) -> dict[str, np.ndarray]:
        """Tables over the places, int32[places]: `modality` (index), `position` (within it), `offset` (of its ids)."""
        sizes = [m.places for m in self.modalities]
        return {
            "modality": np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
            "position": np.concatenate([np.arange(n, dtype=np.int32) for n in sizes]),
            "offset": np.repeat(np.array([self.offset(n) for n in self.names], np.int32), sizes),
        }

    def fingerprint(self) -> str:
        """Hash of everything that makes two spaces interchangeable."""
        text = json.dumps(
            [dataclasses.asdict(m) | {"kind": type(m.layout).__name__} for m in self.modalities]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """B aligned multi-modal examples in tokens: the pytree that crosses from data to task.

    Attributes:
      ids: per modality int32[B, size], in the modality's own vocabulary (0 .. vocabulary.size).
      length: per modality int32[B], filled places (= size but for sequences; includes the eos).
      present: per modality bool[B]; what is absent is neither seen, predicted nor contrasted.
      group: int32[B]; examples of one group are each other's positives in the contrast (their own
        number where only an example's own parts belong together, a class label where pairs are made by label).
      values: of dense modalities, in place of ids: float[B, size, features].
    """

    ids: dict[str, Any]
    length: dict[str, Any]
    present: dict[str, Any]
    group: Any
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """N chosen tokens of each example, of all modalities together: what the model reads or predicts.

    Attributes:
      ids: int32[B, N] on the id line (anything where `mask` is False).
      place: int32[B, N], which of the space's places: modality and position follow from it.
      mask: bool[B, N], False = no token (padding).
      given: int32[B, N] on the id line, of queries that are told a token (the one before theirs); -1 = told nothing. None = all of them.
      values: of dense modalities, all that an example has: float[B, size, features]; a token's id is its row there.
    """

    ids: jax.Array
    place: jax.Array
    mask: jax.Array
    given: jax.Array | None = None
    values: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
