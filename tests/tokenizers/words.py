"""A small text vocabulary in 4M's format, made on the spot."""

import json
from functools import cache
from pathlib import Path

from mm.space import Modality
from mm.tokenizers import wordpiece
from mm.tokenizers.text import TextTokenizer
from mm.weights import m4_modalities

LINES = (
    "human pose global shape camera point polygon none",
    "a quick brown fox jumps over the lazy dog",
    "two cats, and hot dogs on a dining table",
    "it isn't raining.",
)
SIZE = 4450


@cache
def vocabulary() -> str:
    """Its JSON."""
    return wordpiece.train(LINES * 3, SIZE).to_str(pretty=True)


@cache
def ids() -> dict[str, int]:
    """Word -> id."""
    return json.loads(vocabulary())["model"]["vocab"]


def of(name: str, max_tokens: int, size: int) -> Modality:
    """One of 4M's sequences with another length and vocabulary."""
    own = {"max_tokens": max_tokens, "vocab_size": size}
    return m4_modalities.space([name], overrides={name: own})[name]


def tokenizer(folder: Path, name: str, max_tokens: int) -> TextTokenizer:
    """The vocabulary as the tokenizer of a modality."""
    path = folder / "text_tokenizer.json"
    path.write_text(vocabulary())
    return wordpiece.load(path, of(name, max_tokens, len(ids())))
