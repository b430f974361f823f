"""Tokenizers: each writes one kind of data in discrete ids and reads them back. Loaded from artefacts by path."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from etils.epath import Path

from mm import artefact
from mm.errors import UserError
from mm.space import Modality, TokenSpace


class Tokenizer(Protocol):
    """What every tokenizer can do, whatever it is made of.

    Attributes:
      modality: its place in a token space; the name is given where it is loaded.
      fingerprint: of the artefact.
      card: facts for people (data, licence, figures).
      vectors: float32[vocabulary, d], what the codes stand for in the tokenizer's own space (a codebook), so that a
        model can begin with like codes alike; None where ids are mere names.
    """

    modality: Modality
    fingerprint: str
    card: dict[str, Any]
    vectors: np.ndarray | None

    def encode(self, raw: Any) -> tuple[np.ndarray, np.ndarray]:
        """Raw rows (images, waveforms, strings) -> ids int32[n, size] and lengths int32[n]."""
        ...

    def decode(self, ids: np.ndarray, length: np.ndarray | None = None) -> Any:
        """ids int32[n, size] -> raw rows."""
        ...

    def read_file(self, path: Path | str) -> Any:
        """A user's file (or text) -> one raw row, brought to the form of the training data.

        Raises:
          UserError: unreadable, empty, of no known type.
        """
        ...

    def write_file(self, raw: Any, stem: Path) -> Path:
        """One raw row -> a file a person can look at or listen to; returns its path (suffix added)."""
        ...


def load(reference: str, name: str) -> Tokenizer:
    """Loads the tokenizer of modality `name` from "path" or "path#fingerprint"; of a vocabulary for several modalities, the one
    that it has for this.

    An artefact may name a class of a recipe, whose file is then run: load only those you trust as code.

    Raises:
      UserError: see `artefact.read`; or the file is another one than the fingerprint asks for, holds no
        tokenizer, or one whose class is not found or has changed.
    """
    path, _, pinned = reference.partition("#")
    meta, arrays = artefact.read(Path(path))
    if pinned and not meta["fingerprint"].startswith(pinned):
        raise UserError(
            f"{path}: fingerprint {meta['fingerprint']} is not the {pinned} that the config was made for; "
            "restore the file, or retrain with the new one and change the config"
        )
    from mm.tokenizers import autoencoder, shared, text

    if meta["kind"] == "text":
        return text.TextTokenizer(name=name, meta=meta, arrays=arrays)
    if meta["kind"] == "vocabulary":
        return shared.load(name, meta, arrays)
    return autoencoder.AutoencoderTokenizer(Path(path), name=name, meta=meta, arrays=arrays)


def load_all(references: Mapping[str, str]) -> dict[str, Tokenizer]:
    """The tokenizers of `config.Data.tokenizers`, by modality. Raises UserError: see `load`."""
    return {name: load(reference, name) for name, reference in references.items()}


def space_in(loaded: Mapping[str, Tokenizer], source: Any) -> TokenSpace | None:
    """The space of these tokenizers, or, where there are none, that of a source whose rows are tokens already."""
    return space_of(loaded) if loaded else getattr(source, "space", None)


def fingerprints_in(loaded: Mapping[str, Tokenizer], source: Any) -> dict[str, str]:
    """The fingerprints of these tokenizers, or, where there are none, of those that wrote a source's tokens."""
    if loaded:
        return {name: t.fingerprint for name, t in loaded.items()}
    return dict(getattr(source, "fingerprints", {}))


def space_of(loaded: Mapping[str, Tokenizer]) -> TokenSpace:
    """The token space that tokenizers span, in their order. Raises UserError if two do not fit together."""
    try:
        return TokenSpace(tuple(t.modality for t in loaded.values()))
    except ValueError as e:
        raise UserError(f"config.data.tokenizers: {e}; retrain one of them") from e
