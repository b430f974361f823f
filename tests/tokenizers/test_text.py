"""Texts and templates: whatever is written comes back; the vocabulary's task makes words of what it reads."""

from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mm import tokenizers
from mm.errors import UserError
from mm.space import Sequence
from mm.tasks.vocabulary import TrainVocabulary, train_bpe
from mm.tokenizers.text import TextTokenizer, to_bytes

SHIPPED = Path(__file__).parents[2] / "tokenizers" / "text.safetensors"
CORPUS = ["red", "blue", "a red cat", "a blue cat, running", "a small red dog, sitting"]


def make(texts: list[str], max_len: int, fold: bool = False, size: int = 400) -> TextTokenizer:
    config = {"max_len": max_len, "fold_case": fold}
    arrays = {"vocabulary": to_bytes(train_bpe(dict.fromkeys(texts, 3), size))}
    return TextTokenizer(
        name="words", meta={"config": config, "fingerprint": "", "card": {}}, arrays=arrays
    )


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return make(CORPUS, max_len=9, fold=True)


@pytest.fixture(scope="module")
def roomy() -> TextTokenizer:
    return make(CORPUS, max_len=400)


@given(st.lists(st.text(max_size=60), max_size=5))
@example(
    [
        "",
        " ",
        "  red",
        "red ",
        "[EOS]",
        "[MASK]",
        "<|endoftext|>",
        "\x00",
        "\ud7ff\U0010ffff",
        "a\r\nb",
    ]
)
def test_any_text_comes_back(roomy, texts):
    ids, length = roomy.encode(texts)
    assert ids.shape == (len(texts), 400) and ids.dtype == length.dtype == np.int32
    assert roomy.decode(ids, length) == texts
    assert roomy.decode(ids) == texts
    eos = roomy.modality.vocabulary.eos
    assert [int(np.argmax(row == eos)) + 1 for row in ids] == length.tolist()


@given(st.integers(1, 4), st.integers(0, 2**32))
def test_any_ids_decode_to_strings(tokenizer, rows, seed):
    ids = np.random.default_rng(seed).integers(
        -5, tokenizer.modality.vocabulary.size + 5, (rows, 9)
    )
    assert [type(t) for t in tokenizer.decode(ids)] == [str] * rows


def test_words_are_one_token_alone_and_in_sentences(tokenizer):
    (alone, sentence), length = tokenizer.encode(["red", "a small red dog, sitting"])
    assert length.tolist() == [2, 7]
    assert alone[0] == sentence[2]
    assert (
        tokenizer.modality.layout == Sequence(max_len=9)
        and tokenizer.modality.order == "left_to_right"
    )
    assert tokenizer.modality.vocabulary.size == tokenizer.modality.vocabulary.eos + 1


def test_decode_stops_at_the_first_end_or_at_the_length(tokenizer):
    ids, _ = tokenizer.encode(["a red cat"])
    junk = ids.copy()
    junk[:, 5:] = ids[0, 0]
    assert tokenizer.decode(junk) == ["a red cat"]
    assert tokenizer.decode(ids, np.array([2])) == ["a red"]


def template(tokenizer: TextTokenizer, text: str) -> list[str]:
    """A template as it reads: tokens, "?" for what is to be generated, "$" for the end."""
    ids, known = tokenizer.encode_prompt(text)
    assert ids.shape == known.shape == (9,) and ids.dtype == np.int32 and known.dtype == bool
    names = [
        "$" if i == tokenizer.modality.vocabulary.eos else tokenizer.decode(np.array([[i]]))[0]
        for i in ids
    ]
    return [name if k else "?" for name, k in zip(names, known, strict=True)]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("[MASK]", "? $ ? ? ? ? ? ? ?"),
        ("...", "? ? ? ? ? ? ? ? ?"),
        ("a ...", "a ? ? ? ? ? ? ? ?"),
        ("A Red [MASK]", "a red ? $ ? ? ? ? ?"),
        ("a [MASK] cat ...", "a ? cat ? ? ? ? ? ?"),
        ("a [MASK][MASK] cat, running", "a ? ? cat , running $ ? ?"),
        ("[MASK] red [MASK], running ...", "? red ? , running ? ? ? ?"),
    ],
)
def test_templates(tokenizer, text, places):
    assert template(tokenizer, text) == places.split(" ")


def test_a_filled_template_is_the_sentence(tokenizer):
    ids, known = tokenizer.encode_prompt("a [MASK] cat, running")
    whole, length = tokenizer.encode(["a blue cat, running"])
    np.testing.assert_array_equal(ids[known], whole[0][known])
    assert np.flatnonzero(~known[: length[0]]).tolist() == [1]


@pytest.mark.parametrize(
    ("text", "said"),
    [("a red cat", "leaves nothing"), ("a" + " [MASK]" * 9, "takes 9"), ("", "nothing")],
)
def test_templates_that_make_no_sense(tokenizer, text, said):
    with pytest.raises(UserError, match=said):
        tokenizer.encode_prompt(text)


def test_what_people_type_and_their_files(tokenizer, tmp_path):
    assert tokenizer.read_file("  A Red\n cat ") == "a red cat"
    path = tokenizer.write_file("a blue cat, running", tmp_path / "out" / "text")
    assert path.name == "text.txt" and tokenizer.read_file(path) == "a blue cat, running"
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfred")
    assert tokenizer.read_file(str(tmp_path / "bom.txt")) == "red"


def test_case_is_kept_where_the_training_texts_have_it(roomy):
    assert roomy.read_file("Red") == "Red"


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"\xff\xfe\x00", b"a very long story about something else"]
)
def test_bad_text_files_are_one_line(tokenizer, tmp_path, content):
    (tmp_path / "user.txt").write_bytes(content)
    with pytest.raises(UserError) as error:
        tokenizer.read_file(tmp_path / "user.txt")
    assert "\n" not in str(error.value)


def test_missing_and_long_texts(tokenizer, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        tokenizer.read_file(tmp_path / "no.txt")
    with pytest.raises(UserError, match="9"):
        tokenizer.encode(["red", "a zebra that nobody has seen before"])


class Data:
    """Opened data, as far as the task looks at it: columns whose rows come as lists."""

    def raw(self, split: str) -> dict[str, "Data"]:
        self.texts = CORPUS * 4 if split == "train" else ["a red dog"]
        return {"words": self}

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: np.ndarray) -> list[str]:
        return [self.texts[i] for i in rows]


def test_the_task_writes_what_load_reads(tmp_path):
    task = TrainVocabulary(column="words", max_len=7, card={"licence": "free"}).build(Data())
    assert task.init(jax.random.key(0)) == ({}, {}) and task.loss(
        {}, {}, {}, jax.random.key(0)
    ) == ({}, {})
    path = task.export({}, {}, tmp_path)
    loaded = tokenizers.load(str(path), "words")
    assert loaded.card["validation"]["exact"] == 1.0 and loaded.card["licence"] == "free"
    assert loaded.encode(["a red dog"])[1].tolist() == [4]
    again = (
        TrainVocabulary(column="words", max_len=7).build(Data()).export({}, {}, tmp_path / "again")
    )
    assert tokenizers.load(str(again), "words").fingerprint == loaded.fingerprint


def test_a_training_text_that_does_not_fit_is_named(tmp_path):
    with pytest.raises(UserError, match=r"max_len=6.*a small red dog"):
        TrainVocabulary(column="words", max_len=6).build(Data()).export({}, {}, tmp_path)


def test_texts_that_are_too_long_lose_their_end_where_that_is_asked_for(tmp_path):
    task = TrainVocabulary(column="words", max_len=4, cut=True).build(Data())
    made = tokenizers.load(str(task.export({}, {}, tmp_path)), "words")
    ids, length = made.encode(["a small red dog, sitting", "red"])
    assert ids.shape == (2, 4) and length.tolist() == [4, 2]
    assert made.decode(ids) == ["a small red", "red"]
    with pytest.raises(UserError, match="the model takes 4"):  # a user is told
        made.read_file("a small red dog, sitting")


@pytest.mark.parametrize(
    ("changed", "said"), [({"size": 100}, "size=100"), ({"max_len": 1}, "max_len=1")]
)
def test_bad_settings_are_named(changed, said):
    with pytest.raises(UserError, match=said):
        TrainVocabulary(**changed).validate()


def test_the_size_of_a_vocabulary_is_a_limit():
    assert train_bpe(dict.fromkeys(CORPUS, 3), 270).get_vocab_size() == 270


def test_shipped_vocabulary():
    shipped = tokenizers.load(str(SHIPPED), "text")
    assert {"data", "licence", "validation"} <= set(shipped.card)
    _, length = shipped.encode(["seven", "a small thin seven, leaning right", "a plain eight"])
    assert length.tolist() == [2, 8, 4]
    assert shipped.modality.vocabulary.size <= 384
