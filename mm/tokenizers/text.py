"""Texts as tokens of a vocabulary of Hugging Face `tokenizers`, and templates with holes.

Ours are byte-level BPE. Every text is written with one space before it, so that a word is the same token alone and
within a sentence. Bytes are the fallback: any Unicode comes back as it was. The end of a sequence is an id of its own
beside the vocabulary, so no text can spell it. Those of 4M are WordPiece, with the end among their words: see
`mm.tokenizers.wordpiece`.
"""

from collections.abc import Sequence as Rows
from typing import Any

import numpy as np
import tokenizers as hf
from etils.epath import Path

from mm.errors import UserError
from mm.space import Modality, Sequence, Vocabulary

HOLE = "[MASK]"
OPEN = "..."
ALPHABET = sorted(hf.pre_tokenizers.ByteLevel.alphabet())
"""The 256 bytes as byte-level vocabularies spell them, in the order of their ids."""
FILE_LIMIT = 100_000  # bytes of a text file that are read at all


def byte_level(model: Any) -> hf.Tokenizer:
    """A vocabulary over the bytes of texts, which come with their leading space: the library adds none of its own."""
    made = hf.Tokenizer(model)
    made.pre_tokenizer = hf.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = hf.decoders.ByteLevel()
    return made


def to_bytes(tokenizer: hf.Tokenizer) -> np.ndarray:
    """A vocabulary as an artefact's array: its JSON, uint8[n]."""
    return np.frombuffer(tokenizer.to_str().encode(), np.uint8)


class TextTokenizer:
    """See `mm.tokenizers.Tokenizer`. Raw rows are strings.

    Ids 0 .. K - 1 are the vocabulary's, K is the end of the sequence (`modality.vocabulary.eos`); where the config names
    a word that is the end, there is no other.

    Attributes:
      backend: the vocabulary.
      pad: the id behind the end.
      config, arrays: what its artefact holds: max_len, fold_case (what a person types becomes lower case) and, where
        not the usual, cut (longer texts lose what is too much: True; their end as well: "with_eos"), eos and pad (words
        of the vocabulary), specials (further words behind it that no text can spell), lead (what each text is written
        behind), vocabulary (its name), places, wraps (see `Sequence`); and the JSON of the vocabulary.
    """

    def __init__(self, *, name: str, meta: dict[str, Any], arrays: dict[str, np.ndarray]):
        self.config: dict[str, Any] = meta["config"]
        self.arrays = arrays
        self.backend = hf.Tokenizer.from_str(arrays["vocabulary"].tobytes().decode())
        usual = " " if isinstance(self.backend.model, hf.models.BPE) else ""
        self._lead: str = self.config.get("lead", usual)
        self._special = {t.content: i for i, t in self.backend.get_added_tokens_decoder().items()}
        if specials := self.config.get("specials"):
            self._special = _add_specials(self.backend, specials)
            self.backend.encode_special_tokens = True  # what a text spells is a text
        self._word = {i: w for w, i in self._special.items()}
        words = self.backend.get_vocab() | self._special
        size = max(words.values()) + 1
        self._eos = words[self.config["eos"]] if "eos" in self.config else size
        self.pad = words[self.config["pad"]] if "pad" in self.config else self._eos
        self.modality = Modality(
            name=name,
            vocabulary=Vocabulary(
                name=self.config.get("vocabulary", name),
                size=max(size, self._eos + 1),
                eos=self._eos,
            ),
            layout=Sequence(
                max_len=self.config["max_len"],
                places=self.config.get("places", 0),
                wraps=self.config.get("wraps", 0),
            ),
            order="left_to_right",
        )
        self.fingerprint: str = meta["fingerprint"]
        self.card: dict[str, Any] = meta["card"]
        self.vectors: np.ndarray | None = None

    def encode(self, raw: Rows[str]) -> tuple[np.ndarray, np.ndarray]:
        """n strings -> ids int32[n, max_len], filled up (with the eos, or `pad`), and lengths int32[n], the first eos counted.

        Raises:
          UserError: a text is longer than the layout, and the artefact does not say that such are cut.
        """
        texts, rows = np.unique(
            np.asarray(raw, dtype=object), return_inverse=True
        )  # captions repeat a lot
        pieces = [
            self._ended(e.ids)
            for e in self.backend.encode_batch([self._lead + t if t else "" for t in texts])
        ]
        for text, ids in zip(texts, pieces, strict=True):
            self._check_length(text, len(ids))
        out, length = self.filled(pieces)
        return out[rows], length[rows]

    def filled(self, pieces: Rows[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of n rows, no longer than the layout -> int32[n, max_len], filled up with `pad`, and lengths int32[n]."""
        length = np.array([len(ids) for ids in pieces], np.int32)
        out = np.full((len(pieces), self.modality.size), self.pad, np.int32)
        for row, ids in zip(out, pieces, strict=True):
            row[: len(ids)] = ids
        return out, length

    def id_of(self, word: str) -> int | None:
        """The id of a word that is one token: a special one, or as it stands in a text; None = it is none."""
        if word in self._special:
            return self._special[word]
        ids = self.backend.encode(self._lead + word).ids
        return ids[0] if len(ids) == 1 and self.word_of(ids[0]) == word else None

    def word_of(self, i: int) -> str:
        """How a token is spelt, without the blank before it."""
        spelt = self.backend.decode([i], skip_special_tokens=False).strip()
        return self._word.get(i) or spelt or f"[{i}]"

    def decode(self, ids: np.ndarray, length: np.ndarray | None = None) -> list[str]:
        """ids int[n, max_len] -> n strings, each up to its first eos. Bytes that are no UTF-8 become U+FFFD."""
        ids = np.clip(ids, 0, self._size - 1)
        ends = np.full(len(ids), ids.shape[1]) if length is None else np.asarray(length)
        after = np.arange(ids.shape[1]) >= ends[:, None]
        table, rows = np.unique(np.where(after, self._eos, ids), axis=0, return_inverse=True)
        pieces = [
            row[: np.argmax(np.append(row, self._eos) == self._eos)].tolist() for row in table
        ]
        texts = self.backend.decode_batch(pieces, skip_special_tokens=False)
        return [texts[i].removeprefix(self._lead) for i in rows]

    def ids_of(self, old: "TextTokenizer") -> np.ndarray:
        """Which of these ids mean what the ids of a smaller vocabulary mean, int[old size].

        Raises:
          UserError: a token of the old one is not here.
        """
        here, there = self.backend.get_vocab(), old.backend.get_vocab()
        gone = [token for token in there if token not in here]
        if gone:
            raise UserError(
                f"{len(gone)} tokens of the old vocabulary are not in the new one ({gone[0]!r}); extend the old one"
            )
        ids = np.full(old._size, self._eos)
        ids[list(there.values())] = [here[token] for token in there]
        return ids

    def encode_prompt(self, template: str) -> tuple[np.ndarray, np.ndarray]:
        """What generation is given of a text: "a [MASK] seven ..." -> ids int32[max_len] and known bool[max_len].

        "[MASK]" is a hole of exactly one token. With " ..." at the end the text goes on as the model likes;
        otherwise it ends there, by a known eos.

        Raises:
          UserError: the template leaves nothing to generate, or is longer than the layout.
        """
        body, is_open = template.strip(), template.rstrip().endswith(OPEN)
        body = body.removesuffix(OPEN).rstrip() if is_open else body
        holes = body.count(HOLE)
        if not is_open and not holes:
            raise UserError(
                f"template {template!r}: leaves nothing to fill in; write {HOLE} for a token, or end it with ' {OPEN}'"
            )
        tokens: list[int | None] = []
        for i, part in enumerate(body.split(HOLE)):
            text = self._folded(
                part.rstrip() if i < holes else part
            )  # the space before a word is in its token
            tokens += [None] if i else []
            tokens += self.backend.encode(self._lead + text if i == 0 and text else text).ids
        tokens += [] if is_open else [self._eos]
        self._check_length(template, len(tokens) + is_open)
        ids, known = (
            np.full(self.modality.size, self.pad, np.int32),
            np.zeros(self.modality.size, bool),
        )
        for place, token in enumerate(tokens):
            if token is not None:
                ids[place], known[place] = token, True
        return ids, known

    def read_file(self, path: Path | str) -> str:
        """A text, or the path of a .txt file with one -> the text on one line.

        Raises:
          UserError: no such file, not UTF-8, empty, or longer than the layout.
        """
        text = self._folded(" ".join(text_of(path).split()))
        if not text:
            raise UserError(f"{str(path)!r}: the text is empty; write some words")
        self._check_length(text, len(self.backend.encode(self._lead + text).ids) + 1)
        return text

    def write_file(self, raw: str, stem: Path) -> Path:
        """A string -> `stem`.txt; returns its path."""
        path = Path(stem).with_name(Path(stem).name + ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(raw + "\n", encoding="utf-8")
        return path

    @property
    def _size(self) -> int:
        assert self.modality.vocabulary
        return self.modality.vocabulary.size

    def _ended(self, ids: list[int]) -> list[int]:
        """With the eos, and cut as the config says."""
        cut, size = self.config.get("cut", False), self.modality.size
        if cut == "with_eos":
            return [*ids, self._eos][:size]
        return [*(ids[: size - 1] if cut else ids), self._eos]

    def _folded(self, text: str) -> str:
        """What a person types, as the training texts are written: in small letters, if they all are."""
        return text.lower() if self.config["fold_case"] else text

    def _check_length(self, text: str, tokens: int) -> None:
        if tokens > self.modality.size:
            shown = text if len(text) <= 60 else text[:57] + "..."
            raise UserError(
                f"text {shown!r}: {tokens} tokens with its end, the model takes {self.modality.size}; "
                "shorten it, or use words of the training texts (others are spelt in pieces)"
            )


def _add_specials(backend: hf.Tokenizer, words: Rows[str]) -> dict[str, int]:
    """Adds words behind a vocabulary, each with an id of its own even where a byte is spelt like it: word -> id."""
    taken, spelt = set(backend.get_vocab()), []
    for word in words:
        while word in taken:
            word = f"<{word}>"
        taken.add(word)
        spelt.append(hf.AddedToken(word, normalized=False))
    first = len(backend.get_vocab())
    backend.add_special_tokens(spelt)
    return {word: first + i for i, word in enumerate(words)}


def text_of(path: Path | str, suffixes: tuple[str, ...] = (".txt",)) -> str:
    """The text of a file with one of these suffixes, or what is given itself. Raises UserError: see `read_file`."""
    return _read(Path(path)) if str(path).endswith(suffixes) else str(path)


def _read(path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the path, or give the text itself")
    try:
        with path.open("rb") as f:
            return f.read(FILE_LIMIT).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path}: not a readable UTF-8 text ({e}); save it as UTF-8") from e
