"""One vocabulary for several modalities: texts, and structured things as sentences of it, from one artefact.

The modality's name says which of them is meant: `mm.tokenizers.load(path, "boxes")`. Beside what was learned from texts the
vocabulary has special words, each one token: 4M's marks, sentinels and coordinates, and whatever words of the forms are
no plain ones (brackets, names with underscores). No text can spell them, unless it is of 4M's format, where all can.

Kinds: `bpe`, byte-level; `bytes`, 256 of them and nothing learned; `wordpiece`, 4M's format. Of the first two every text
comes back as it was.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tokenizers as hf
from etils.epath import Path

from mm import config
from mm.errors import UserError, nearest
from mm.tokenizers import wordpiece
from mm.tokenizers.structured.form import Form
from mm.tokenizers.text import ALPHABET, HOLE, OPEN, TextTokenizer, byte_level, text_of

KINDS = ("bpe", "wordpiece", "bytes")
PLAIN = re.compile("[a-z]+")


def special_words(sentinels: int, words: Iterable[str] = ()) -> tuple[str, ...]:
    """Marks, sentinels, coordinates, then `words`: in the order of their ids."""
    coordinates = (
        wordpiece.coordinate(f, i) for f in range(wordpiece.FAMILIES) for i in range(wordpiece.BINS)
    )
    marks = (*wordpiece.MARKS, *map(wordpiece.sentinel, range(sentinels)), *coordinates)
    return tuple(dict.fromkeys((*marks, *words)))


def words_of(forms: Mapping[str, Form]) -> tuple[str, ...]:
    """All words of their sentences that are no coordinates, sorted."""
    words = {w for form in forms.values() for w in form.grammar.words}
    return tuple(sorted(words - set(special_words(0))))


def of_bytes() -> hf.Tokenizer:
    """The 256 bytes, nothing learned."""
    return byte_level(hf.models.BPE({c: i for i, c in enumerate(ALPHABET)}, []))


def with_words(bpe: hf.Tokenizer, words: Iterable[str]) -> hf.Tokenizer:
    """A byte-level BPE in which each of these words, behind a blank, is one token: by merges behind all others."""
    for spelt in words:
        while len(pieces := bpe.encode(f" {spelt}").tokens) > 1:
            state = json.loads(bpe.to_str())
            model, joined = state["model"], pieces[0] + pieces[1]
            model["merges"].append(pieces[:2])
            model["vocab"].setdefault(joined, len(model["vocab"]))
            bpe = hf.Tokenizer.from_str(json.dumps(state))
    return bpe


def load(name: str, meta: dict[str, Any], arrays: dict[str, np.ndarray]) -> Any:
    """The tokenizer of modality `name`: of texts, or of sentences.

    Args:
      meta, arrays: of the artefact (`mm.tasks.shared_vocabulary` says what is in it).

    Raises:
      UserError: it has no such modality, or the class of its form is not here.
    """
    shared = meta["config"]
    if name not in shared["lengths"]:
        raise UserError(
            f"modality {name!r}: the vocabulary {shared['vocabulary']!r} is of others"
            f"{nearest(name, shared['lengths'])}"
        )
    own: dict[str, Any] = {
        "max_len": shared["lengths"][name],
        "fold_case": shared["fold_case"],
        "vocabulary": shared["vocabulary"],
        "eos": wordpiece.EOS,
        "pad": wordpiece.PAD,
        "cut": shared.get("cut", False),
    }
    if "sentinels" in shared:
        own["specials"] = list(special_words(shared["sentinels"], shared["words"]))
    if shared["kind"] == "bytes":
        own["lead"] = ""
    text = TextTokenizer(name=name, meta=meta | {"config": own}, arrays=arrays)
    if name not in shared["forms"]:
        return text
    return SentenceTokenizer(_form(name, shared["forms"][name]), text)


def _form(name: str, saved: dict[str, Any]) -> Form:
    """A form from its JSON. Raises UserError: its class is not here, is no form, or has other fields by now."""
    try:
        form = config.from_json(saved)
    except TypeError as e:
        raise UserError(
            f"modality {name!r}: {saved['type']} has other fields by now ({e}); train it anew"
        ) from e
    if not isinstance(form, Form):
        raise UserError(
            f"modality {name!r}: {saved['type']} is no form, or not here; run from the checkout that has it"
        )
    return form


class SentenceTokenizer:
    """See `mm.tokenizers.Tokenizer`. Raw rows are the form's: JSON, or trees as text.

    A sentence of which any token is wrong stands for nothing: `decode` gives it back as the words that it has, `values`
    says where it goes wrong.

    Attributes:
      form: value <-> sentence. text: the vocabulary, as the tokenizer of texts.
      ids: of the form's words.
    """

    def __init__(self, form: Form, text: TextTokenizer):
        """Raises UserError: words of the form are no single tokens of the vocabulary."""
        self.form, self.text = form, text
        self.modality, self.fingerprint, self.card = text.modality, text.fingerprint, text.card
        self.vectors: np.ndarray | None = None
        found = {w: text.id_of(w) for w in form.grammar.words}
        if missing := [w for w, i in found.items() if i is None]:
            raise UserError(
                f"modality {text.modality.name!r}: {len(missing)} words of its sentences are no single tokens of the "
                f"vocabulary ({', '.join(missing[:5])}); train one that has them"
            )
        self.ids = {w: i for w, i in found.items() if i is not None}
        self._words = {i: w for w, i in self.ids.items()}

    @functools.cached_property
    def grammar(self) -> Any:
        """`mm.generate.grammar.Tables` of its sentences, over its ids."""
        return self.form.grammar.tables(self.ids, self._vocabulary.size, self._eos)

    def encode(self, raw: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
        """n rows -> ids int32[n, max_len], filled up with `pad`, and lengths int32[n], the end counted.

        Raises:
          UserError: a row that the form cannot write, or that has more tokens than the layout has places.
        """
        pieces = [
            [*(self.ids[w] for w in self._tokens(r, i)), self._eos] for i, r in enumerate(raw)
        ]
        for i, ids in enumerate(pieces):
            self._check_length(len(ids), f"row {i}")
        return self.text.filled(pieces)

    def decode(self, ids: np.ndarray, length: np.ndarray | None = None) -> list[str]:
        """ids int[n, max_len] -> n rows, each up to its first end. Ids beyond the vocabulary are clipped to it."""
        return [self._row(" ".join(words)) for words in self._spelt(ids, length)]

    def values(self, ids: np.ndarray, length: np.ndarray | None = None) -> list[Any]:
        """ids int[n, max_len] -> n values of the form.

        Raises:
          UserError: an id beyond the vocabulary, or a malformed sentence: which row, and which token.
        """
        ids = np.asarray(ids)
        if len(bad := np.argwhere((ids < 0) | (ids >= self._vocabulary.size))):
            row, place = bad[0]
            raise UserError(
                f"row {row}, token {place + 1}: id {ids[row, place]} is not in 0 .. {self._vocabulary.size - 1}; "
                f"give ids of {self.modality.name!r} alone, counted from 0"
            )
        found = []
        for row, words in enumerate(self._spelt(ids, length)):
            try:
                found.append(self.form.read(" ".join(words)))
            except UserError as e:
                raise UserError(f"row {row}: {e}") from e
        return found

    def encode_prompt(self, template: str) -> tuple[np.ndarray, np.ndarray]:
        """What generation is given of a sentence: "v0=3 [MASK] ..." -> ids int32[max_len] and known bool[max_len].

        "[MASK]" is a hole of one token. With " ..." at the end the sentence goes on; otherwise it ends there.

        Raises:
          UserError: nothing is left to generate, a word is none of its sentences, or there is no room.
        """
        words, is_open = template.split(), template.split()[-1:] == [OPEN]
        words = words[:-1] if is_open else words
        if not is_open and HOLE not in words:
            raise UserError(f"template {template!r}: leaves nothing to fill in; write {HOLE} for a token, or end it with ' {OPEN}'")  # fmt: skip
        for i, w in enumerate(words):
            if w != HOLE and w not in self.ids:
                near = nearest(w, (w for w in self.ids if PLAIN.fullmatch(w)))
                raise UserError(f"template, token {i + 1} of {len(words)}: no sentence of {self.modality.name!r} has {w!r}{near}")  # fmt: skip
        self._check_length(len(words) + 1, "template")
        ids, known = (np.full(self.modality.size, self.text.pad, np.int32), np.zeros(self.modality.size, bool))  # fmt: skip
        for place, w in enumerate(words):
            ids[place], known[place] = self.ids.get(w, self.text.pad), w != HOLE
        if not is_open:
            ids[len(words)], known[len(words)] = self._eos, True
        return ids, known

    def ids_of(self, old: "SentenceTokenizer") -> np.ndarray:
        """Which of these ids mean what those of a smaller vocabulary mean. Raises UserError: see `TextTokenizer`."""
        return self.text.ids_of(old.text)

    def read_file(self, path: Path | str) -> str:
        """A row, or the path of a .json or .txt file with one -> the row with each number one that its bin stands for.

        Raises:
          UserError: no such file, not UTF-8, no such row, or more tokens than the layout has places.
        """
        row = text_of(path, (".json", ".txt"))
        words = self._tokens(row, 0)
        self._check_length(len(words) + 1, repr(str(path)))
        return self.form.to_row(self.form.read(" ".join(words)))

    def write_file(self, raw: str, stem: Path) -> Path:
        """A row -> `stem`.txt; returns its path."""
        return self.text.write_file(raw, stem)

    @property
    def _vocabulary(self) -> Any:
        return self.modality.vocabulary

    @property
    def _eos(self) -> int:
        return self._vocabulary.eos

    def _tokens(self, row: Any, i: int) -> list[str]:
        try:
            return self.form.tokens(self.form.from_row(row))
        except UserError as e:
            raise UserError(f"row {i}: {e}") from e

    def _row(self, sentence: str) -> str:
        try:
            return self.form.to_row(self.form.read(sentence))
        except UserError:
            return sentence

    def _spelt(self, ids: np.ndarray, length: np.ndarray | None) -> list[list[str]]:
        """The words of each row, up to its end."""
        ids = np.clip(ids, 0, self._vocabulary.size - 1)
        ends = np.full(len(ids), ids.shape[1]) if length is None else np.asarray(length)
        rows = [row[:end].tolist() for row, end in zip(ids, ends, strict=True)]
        rows = [row[: row.index(self._eos)] if self._eos in row else row for row in rows]
        return [[self._words.get(i) or self.text.word_of(i) for i in row] for row in rows]

    def _check_length(self, tokens: int, where: str) -> None:
        if tokens > self.modality.size:
            raise UserError(
                f"{where}: {tokens} tokens with the end, modality {self.modality.name!r} has {self.modality.size} places; "
                "leave something out, or train a vocabulary with more (`lengths`)"
            )
