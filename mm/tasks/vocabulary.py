"""The text vocabulary's task: no weights and no steps; what it learns, it learns when it is exported.

A vocabulary is trained by the same command, and leaves the same kind of artefact, as every other tokenizer.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tokenizers as hf
from etils.epath import Path

from mm import artefact
from mm.errors import UserError
from mm.tasks import Terms
from mm.tokenizers import text


@dataclasses.dataclass(kw_only=True, slots=True)
class TrainVocabulary:
    """Settings of the task; its experiment has `steps=0`.

    Attributes:
      column: whose texts are read; the artefact is named after it.
      size: tokens at most, the 256 bytes included, the end of the sequence not.
      max_len: places of a sequence, its end included; must hold every training text, unless
      cut: texts that are longer lose what is too much.
      card: facts for people (data, licence); figures on validation texts are added.
    """

    column: str = "text"
    size: int = 383
    max_len: int = 8
    cut: bool = False
    card: dict[str, Any] = dataclasses.field(default_factory=dict)

    def validate(self) -> None:
        """Raises UserError for sizes without room."""
        if self.size < 257:
            raise UserError(
                f"config.task.size={self.size}: the 256 bytes leave no room for a token; raise it"
            )
        if self.max_len < 2:
            raise UserError(
                f"config.task.max_len={self.max_len}: a token and the end need 2 places; raise it"
            )

    def build(self, data: Any) -> "VocabularyTask":
        return VocabularyTask(self, data)


def train_bpe(counts: Mapping[str, int], size: int) -> hf.Tokenizer:
    """A byte-level BPE vocabulary of at most `size` tokens; merges go on until every word is one token.

    Args:
      counts: text -> how often it occurs.

    Source: Sennrich et al. 2016; bytes as in GPT-2 (Radford et al. 2019).
    """
    bpe = text.byte_level(hf.models.BPE())
    trainer = hf.trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=text.ALPHABET, show_progress=False
    )
    texts = (" " + t for t in sorted(counts) for _ in range(counts[t]))
    bpe.train_from_iterator(texts, trainer)
    return bpe


class Stepless:
    """What tasks share that learn all they learn when they export. See `mm.tasks.Task`."""

    weights: Mapping[str, float] = {}

    def __init__(self, settings: Any, data: Any):
        self.settings, self.data = settings, data

    def init(self, key: jax.Array) -> tuple[dict[str, Any], dict[str, Any]]:
        """Nothing is learned by gradients."""
        return {}, {}

    def loss(self, params: Any, buffers: Any, batch: Any, key: jax.Array) -> tuple[Terms, Any]:
        """No terms."""
        return {}, buffers


class VocabularyTask(Stepless):
    """The task of one text modality's vocabulary."""

    def export(self, params: Any, buffers: Any, folder: Path) -> Path:
        """Trains the vocabulary on all training texts and writes `folder`/`column`.safetensors.

        Raises:
          UserError: a training text is longer than `max_len`.
        """
        s = self.settings
        counts = Counter(self._texts("train"))
        bpe, fold = train_bpe(counts, s.size), all(t == t.lower() for t in counts)
        texts = sorted(counts)
        longest, words = max(
            (len(e.ids) + 1, t)
            for e, t in zip(bpe.encode_batch([" " + t for t in texts]), texts, strict=True)
        )
        if longest > s.max_len and not s.cut:
            raise UserError(
                f"config.task.max_len={s.max_len}: training text {words!r} has {longest} tokens with its end; raise it, or set config.task.cut=True"
            )
        config, arrays = (
            {"max_len": s.max_len, "fold_case": fold} | ({"cut": True} if s.cut else {}),
            {"vocabulary": text.to_bytes(bpe)},
        )
        meta = {"config": config, "fingerprint": "", "card": {}}
        made = text.TextTokenizer(name=s.column, meta=meta, arrays=arrays)
        held_out = self._texts("validation")
        ids, held_out_length = made.encode(held_out)
        exact = np.mean([a == b for a, b in zip(made.decode(ids), held_out, strict=True)])
        figures = {
            "exact": float(exact),
            "tokens_per_text": round(float(held_out_length.mean()), 3),
            "longest_training_text": longest,
            "vocabulary": made.modality.vocabulary.size if made.modality.vocabulary else 0,
        }
        path = folder / f"{s.column}.safetensors"
        artefact.write(path, "text", config, arrays, s.card | {"validation": figures})
        return path

    def _texts(self, split: str) -> list[str]:
        column = self.data.raw(split)[self.settings.column]
        return list(column[np.arange(len(column))])
