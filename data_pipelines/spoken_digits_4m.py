"""Spoken digits for a model of 4M's: speech is a new modality, what was said is its caption.

Recordings are those of `data_pipelines.digits`, in the tokens of the shipped speech tokenizer. A caption is the digit's word in the
model's own text vocabulary, or, where none is given, one id for each digit.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from etils.epath import Path

from data_pipelines.digit_captions import DIGIT_WORDS
from data_pipelines.digits import Digits
from mm import tokenizers
from mm.data.batches import TokenTable
from mm.data.records import CorruptLog
from mm.data.tokens_4m import Tokens4M, nothing
from mm.errors import UserError
from mm.space import TokenSpace
from mm.tokenizers import Tokenizer, wordpiece

FIRST_WORD = 204
"""The first id behind 4M's marks and sentinels."""


@dataclasses.dataclass(kw_only=True)
class SpokenDigits4M(Tokens4M):
    """See `mm.data.TokenSource`.

    Attributes:
      forms: of each training recording; see `Digits`.
      speech: the tokenizer's file. text: 4M's text tokenizer (JSON); empty = one id for each digit.
      caption: the modality that says what was said.
    """

    forms: int = 8
    speech: str = "tokenizers/speech.safetensors"
    text: str = ""
    caption: str = "caption"

    @property
    def space(self) -> TokenSpace:
        return TokenSpace(
            (*super().space.modalities, tokenizers.load(self.speech, "speech").modality)
        )

    def tokenizers(self) -> dict[str, Tokenizer]:
        """The speech tokenizer, and 4M's for texts where one is given."""
        found = super().tokenizers() | {"speech": tokenizers.load(self.speech, "speech")}
        if self.text:
            m = self.space[self.caption]
            found[self.caption] = wordpiece.load(Path(self.text), m)
        return found

    def validate(self) -> None:
        """Raises UserError: the model has no such caption."""
        super().validate()
        if self.caption not in self.space.names:
            raise UserError(
                f"config.data.source.caption={self.caption!r}: the model has {', '.join(self.space.names)}"
            )

    def open(self, cache: Path, corrupt: CorruptLog) -> None:
        """Reads the recordings; see `Digits.open`."""
        self._digits = Digits(modalities=("speech",), forms=self.forms)
        self._digits.open(cache, corrupt)
        self._speech = tokenizers.load(self.speech, "speech")
        self._space = self.space  # which reads the tokenizer's file
        self._tables: dict[str, TokenTable] = {}

    def tokens(self, split: str) -> dict[str, TokenTable]:
        """The split's recordings, and ten captions."""
        if split not in self._tables:
            column = self._digits.columns(split)["speech"]
            self._tables[split] = TokenTable(*self._speech.encode(column[np.arange(len(column))]))
        here = {"speech": self._tables[split], self.caption: self._captions()}
        return {m.name: here.get(m.name) or nothing(m) for m in self._space.modalities}

    def _captions(self) -> TokenTable:
        """One for each digit."""
        m = self._space[self.caption]
        if self.text:
            ids, length = wordpiece.load(Path(self.text), m).encode(list(DIGIT_WORDS))
            return TokenTable(ids, length)
        ids = np.zeros((len(DIGIT_WORDS), m.size), np.int32)
        ids[:, 0], ids[:, 1] = (
            FIRST_WORD + np.arange(len(DIGIT_WORDS)),
            self._space.vocabulary(m.name).eos,
        )
        return TokenTable(ids, np.full(len(DIGIT_WORDS), 2, np.int32))

    def order(self, split: str, seed: int, epoch: int) -> Mapping[str, np.ndarray]:
        rows = self._digits.order(split, seed, epoch)
        absent = np.full(len(rows["group"]), -1)
        found = dict.fromkeys(self._space.names, absent) | {self.caption: rows["group"].astype(int)}
        return found | {"speech": rows["speech"], "group": rows["group"]}
