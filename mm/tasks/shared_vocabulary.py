"""The task of a vocabulary that several modalities share: texts, and structured things as sentences; no steps.

What is learned is learned from the training texts. The words of the forms are each one token, whatever the texts hold, and
every training row is written once, so that none is refused later.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import tokenizers as hf
from etils.epath import Path

from mm import artefact, config, progress
from mm.errors import UserError, nearest
from mm.tasks.vocabulary import Stepless, train_bpe
from mm.tokenizers import shared, text, wordpiece

HELD_OUT = 1000  # validation rows of a column, at most, that the card's figures are of


@dataclasses.dataclass(kw_only=True, slots=True)
class TrainSharedVocabulary:
    """Settings of the task; its experiment has `steps=0`.

    Attributes:
      name: of the vocabulary, and of the artefact.
      lengths: column -> places of its sequences, their end included; must hold every training row, unless
      cut: texts that are longer lose what is too much (sentences never do).
      forms: the columns that are structured -> a form of `mm.tokenizers.structured`; all others are texts.
      kind: of `shared.KINDS`.
      size: tokens that are learned at most, bytes or characters included, special words and words of the forms not.
      sentinels: [S_0], [S_1], ..., which mark masked spans (4M's format has 200 in any case).
      rows: training rows of each column that are read; 0 = all.
      card: facts for people (data, licence); figures on validation rows are added.
    """

    name: str = "text"
    lengths: dict[str, int] = dataclasses.field(default_factory=dict)
    cut: bool = False
    forms: dict[str, Any] = dataclasses.field(default_factory=dict)
    kind: str = "bpe"
    size: int = 1000
    sentinels: int = 100
    rows: int = 0
    card: dict[str, Any] = dataclasses.field(default_factory=dict)

    def validate(self) -> None:
        """Raises UserError for settings that make no sense."""
        if self.kind not in shared.KINDS:
            raise UserError(f"config.task.kind={self.kind!r}: use {', '.join(shared.KINDS)}")
        for name in self.forms:
            if name not in self.lengths:
                raise UserError(f"config.task.forms: {name!r} has no length{nearest(name, self.lengths)}")  # fmt: skip
        if not self.lengths or min(self.lengths.values()) < 2:
            raise UserError(f"config.task.lengths={self.lengths}: name the columns; a token and the end need 2 places")  # fmt: skip
        if self.kind == "bpe" and self.size < 257:
            raise UserError(f"config.task.size={self.size}: the 256 bytes leave no room for a token; raise it")  # fmt: skip
        if self.sentinels < 2 or self.rows < 0:
            raise UserError(f"config.task: sentinels={self.sentinels}, rows={self.rows}: at least 2, and at least 0")  # fmt: skip

    def build(self, data: Any) -> "SharedVocabularyTask":
        return SharedVocabularyTask(self, data)


class SharedVocabularyTask(Stepless):
    """The task of a vocabulary that several modalities share."""

    def export(self, params: Any, buffers: Any, folder: Path) -> Path:
        """Trains the vocabulary on the training rows and writes `folder`/`name`.safetensors.

        Raises:
          UserError: a training row cannot be written, or is longer than its column's length.
        """
        s = self.settings
        rows = {name: self._rows("train", name, s.rows) for name in s.lengths}
        texts = Counter(t for name in rows if name not in s.forms for t in rows[name])
        made, own = learned(s.kind, texts, s.size, s.sentinels, shared.words_of(s.forms))
        settings = {
            "kind": s.kind,
            "vocabulary": s.name,
            "fold_case": all(t == t.lower() for t in texts),
            "lengths": dict(s.lengths),
            "forms": {name: config.to_json(form) for name, form in s.forms.items()},
            **own,
        } | ({"cut": True} if s.cut else {})
        arrays = {"vocabulary": text.to_bytes(made)}
        meta = {"config": settings, "fingerprint": "", "card": {}}
        figures = {}
        for name in progress.track(list(s.lengths), "writing the rows"):
            tokenizer = shared.load(name, meta, arrays)
            try:
                figures[name] = self._figures(tokenizer, rows[name], name)
            except UserError as e:
                raise UserError(f"column {name!r}: {e}") from e
        path = folder / f"{s.name}.safetensors"
        artefact.write(path, "vocabulary", settings, arrays, s.card | {"validation": figures})
        return path

    def _figures(self, tokenizer: Any, rows: list[str], name: str) -> dict[str, Any]:
        """How long training rows are, and how validation rows come back."""
        longest = int(tokenizer.encode(rows)[1].max())
        held_out = self._rows("validation", name, HELD_OUT)
        ids, length = tokenizer.encode(held_out)
        decoded = tokenizer.decode(ids, length)
        again = tokenizer.decode(*tokenizer.encode(decoded))
        return {
            "exact": float(np.mean([a == b for a, b in zip(decoded, held_out, strict=True)])),
            "stable": float(np.mean([a == b for a, b in zip(decoded, again, strict=True)])),
            "tokens_per_row": round(float(length.mean()), 2),
            "longest_training_row": longest,
            "vocabulary": tokenizer.modality.vocabulary.size,
        }

    def _rows(self, split: str, name: str, most: int) -> list[str]:
        column = self.data.raw(split)[name]
        count = min(len(column), most) if most else len(column)
        said = f"reading {name} of {split}"
        parts = [np.arange(i, min(i + 100, count)) for i in range(0, count, 100)]
        return [row for part in progress.track(parts, said) for row in column[part]]


def learned(
    kind: str, texts: Mapping[str, int], size: int, sentinels: int, words: tuple[str, ...]
) -> tuple[hf.Tokenizer, dict[str, Any]]:
    """A vocabulary of a kind, and what its artefact must say of the special words that are not in its JSON.

    Args:
      texts: text -> how often it occurs.
      words: that are one token each.
    """
    if kind == "wordpiece":
        lines = [t for t in sorted(texts) for _ in range(texts[t])]
        special = len(wordpiece.special_words(words))
        return wordpiece.train(lines, size + special, words), {}
    if kind == "bytes":
        return shared.of_bytes(), {"sentinels": sentinels, "words": list(words)}
    plain = [w for w in words if shared.PLAIN.fullmatch(w)]
    bpe = shared.with_words(train_bpe(texts, size), plain)
    return bpe, {"sentinels": sentinels, "words": [w for w in words if w not in plain]}
