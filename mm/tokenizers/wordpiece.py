"""4M's text vocabulary: lower-case WordPiece in one JSON file of Hugging Face `tokenizers`.

Captions and structured things (`mm.tokenizers.structured`) are written in the same 30,000 ids: the marks, the sentinels
of masked spans, four families of coordinates, the names of the COCO classes, and then what was learned from texts.
Nothing is added around a text but [EOS] at its end. A text that spells a mark means it, as in 4M.

Source: Bachmann et al. 2024 (4M-21); WordPiece as in BERT, Devlin et al. 2018.
"""

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Sequenced
from itertools import count, takewhile
from typing import Any

import numpy as np
import tokenizers as hf
from etils.epath import Path

from mm import artefact
from mm.errors import UserError
from mm.space import Modality, Sequence
from mm.tokenizers.text import TextTokenizer

PAD, UNK, SOS, EOS = MARKS = ("[PAD]", "[UNK]", "[SOS]", "[EOS]")
SENTINELS = 200
BINS = 1000
FAMILIES = 4
COCO = tuple(
    """airplane, apple, backpack, banana, baseball bat, baseball glove, bear, bed, bench, bicycle, bird, boat, book, bottle,
    bowl, broccoli, bus, cake, car, carrot, cat, cell phone, chair, clock, couch, cow, cup, dining table, dog, donut,
    elephant, fire hydrant, fork, frisbee, giraffe, hair drier, handbag, horse, hot dog, keyboard, kite, knife, laptop,
    microwave, motorcycle, mouse, orange, oven, parking meter, person, pizza, potted plant, refrigerator, remote,
    sandwich, scissors, sheep, sink, skateboard, skis, snowboard, spoon, sports ball, stop sign, suitcase, surfboard,
    teddy bear, tennis racket, tie, toaster, toilet, toothbrush, traffic light, train, truck, tv, umbrella, vase,
    wine glass, zebra""".replace("\n    ", " ").split(", ")
)
"""Names of the 80 classes, alphabetical."""


def sentinel(i: int) -> str:
    """How the mark of a masked span is spelt; the first in use is 1."""
    return f"[S_{i}]"


def coordinate(family: int, i: int) -> str:
    """How bin `i` (0 .. 999) of a family (0 .. 3) is spelt."""
    return f"v{family}={i}"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Specials:
    """Ids of the words that are not learned.

    Attributes:
      sentinels: of [S_0], [S_1], ... coordinates: of v0=0 .. v0=999, and so on; empty where the file has none.
      classes: COCO name -> id, those that are there.
    """

    pad: int
    unk: int
    sos: int
    eos: int
    sentinels: tuple[int, ...]
    coordinates: tuple[tuple[int, ...], ...]
    classes: dict[str, int]


def specials(tokenizer: TextTokenizer) -> Specials:
    """The ids of a vocabulary's special words, found by name.

    Raises:
      UserError: a mark, or [S_0] or [S_1], is missing.
    """
    return _specials(tokenizer.backend, tokenizer.modality.name)


def _specials(backend: hf.Tokenizer, where: object) -> Specials:
    words = backend.get_vocab()
    missing = [w for w in (*MARKS, sentinel(0), sentinel(1)) if w not in words]
    if missing:
        raise UserError(
            f"{where}: the vocabulary lacks {', '.join(missing)}; use the text tokenizer that 4M's model was trained with"
        )
    run = lambda spell: tuple(words[w] for w in takewhile(words.__contains__, map(spell, count())))
    return Specials(
        **{mark.strip("[]").lower(): words[mark] for mark in MARKS},
        sentinels=run(sentinel),
        coordinates=tuple(run(lambda i, f=f: coordinate(f, i)) for f in range(FAMILIES)),
        classes={name: words[name] for name in COCO if name in words},
    )


def load(path: Path | str, modality: Modality, card: dict[str, Any] | None = None) -> TextTokenizer:
    """The tokenizer of one text-like modality from a JSON file. `artefact.write(out, "text", t.config, t.arrays, t.card)`
    makes an artefact of it.

    Raises:
      UserError: no such file, no WordPiece vocabulary of 4M's kind, or not the one of the modality.
    """
    try:
        file = Path(path).read_bytes()
        backend = hf.Tokenizer.from_str(file.decode())
    except Exception as e:  # the library has no type of its own
        raise UserError(
            f"{path}: not a readable JSON file of Hugging Face tokenizers ({e}); check the path"
        ) from e
    if not isinstance(backend.model, hf.models.WordPiece):
        raise UserError(
            f"{path}: holds {type(backend.model).__name__}, not WordPiece; use 4M's text tokenizer"
        )
    _specials(backend, path)
    config = config_of(modality)
    arrays = {"vocabulary": np.frombuffer(file, np.uint8)}
    meta = {"fingerprint": artefact.fingerprint("text", config, arrays), "card": card or {}}
    made = TextTokenizer(name=modality.name, meta=meta | {"config": config}, arrays=arrays)
    if made.modality.vocabulary != modality.vocabulary:
        raise UserError(
            f"{path}: its vocabulary, {made.modality.vocabulary}, is not that of {modality.name!r}, "
            f"{modality.vocabulary}; use the file that belongs to the model"
        )
    return made


def config_of(modality: Modality) -> dict[str, Any]:
    """The settings of a `TextTokenizer` with 4M's vocabulary. A text that is longer than its modality loses its end."""
    assert modality.vocabulary and isinstance(modality.layout, Sequence)
    return {
        "max_len": modality.layout.max_len,
        "places": modality.layout.places,
        "wraps": modality.layout.wraps,
        "vocabulary": modality.vocabulary.name,
        "eos": EOS,
        "pad": PAD,
        "cut": "with_eos",
        "fold_case": True,
    }


def export(tokenizer: TextTokenizer, path: Path) -> Path:
    """Writes the JSON file, byte for byte what was loaded (all or nothing); returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(tokenizer.arrays["vocabulary"].tobytes())
    return partial.replace(path)


def train(lines: Iterable[str], size: int = 30_000, classes: Sequenced[str] = COCO) -> hf.Tokenizer:
    """A vocabulary of at most `size` words in 4M's format: the special ones first, then what the lines teach.

    The same lines give the same vocabulary. Save it by `.save(path)`.

    Args:
      classes: names that are one token each; 4M's are COCO's.

    Raises:
      UserError: the special words and the characters of the lines alone are more.
    """
    lines = list(lines)
    tokenizer = _untrained(hf.models.WordPiece(unk_token=UNK))
    # The library numbers the characters within words in a random order, unless they are there already.
    inner = sorted(
        {f"##{c}" for line in lines for word in _words(tokenizer, line) for c in word[1:]}
    )
    names = [t.content for t in special_words(classes)]
    trainer = hf.trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=names + inner, show_progress=False
    )
    tokenizer.train_from_iterator(lines, trainer)
    words = tokenizer.get_vocab()
    if len(words) > size:
        raise UserError(
            f"a vocabulary of {size}: {len(names)} special words and the characters of the lines are {len(words)}; raise it"
        )
    made = _untrained(hf.models.WordPiece(words, unk_token=UNK))
    made.add_special_tokens(special_words(classes))
    return made


def special_words(classes: Sequenced[str] = COCO) -> list[hf.AddedToken]:
    """In the order of their ids. Class names are found in any case, all others only as they are spelt; the four marks are found
    within words, too.
    """
    sentinels = [sentinel(i) for i in range(SENTINELS)]
    coordinates = [coordinate(f, i) for f in range(FAMILIES) for i in range(BINS)]
    marks = [hf.AddedToken(w, single_word=False, normalized=False) for w in MARKS]
    exact = [hf.AddedToken(w, single_word=True, normalized=False) for w in sentinels + coordinates]
    return marks + exact + [hf.AddedToken(w, single_word=True, normalized=True) for w in classes]


def _untrained(model: hf.models.WordPiece) -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(model)
    tokenizer.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = hf.decoders.WordPiece()
    return tokenizer


def _words(tokenizer: hf.Tokenizer, line: str) -> list[str]:
    normal = tokenizer.normalizer.normalize_str(line)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
