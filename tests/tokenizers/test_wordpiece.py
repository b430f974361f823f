"""4M's text vocabulary: ids where 4M has them, files that come back byte for byte, texts that come back."""

import json

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st

from mm import artefact, tokenizers
from mm.errors import UserError
from mm.space import Sequence
from mm.tasks.vocabulary import train_bpe
from mm.tokenizers import wordpiece
from tests.tokenizers.words import LINES, SIZE, ids, of, tokenizer, vocabulary

IDS = ids()
LEARNED = sorted(w for w, i in IDS.items() if i > 4283 and w.isalpha() and len(w) > 1)


@pytest.fixture(scope="module")
def caption(tmp_path_factory):
    return tokenizer(tmp_path_factory.mktemp("words"), "caption", 12)


@pytest.mark.parametrize(
    ("word", "i"),
    [
        ("[PAD]", 0), ("[UNK]", 1), ("[SOS]", 2), ("[EOS]", 3), ("[S_0]", 4), ("[S_199]", 203),
        ("v0=0", 204), ("v0=999", 1203), ("v1=0", 1204), ("v2=0", 2204), ("v3=0", 3204),
        ("v3=999", 4203), ("airplane", 4204), ("zebra", 4283),
    ],
)  # fmt: skip
def test_special_words_have_4ms_ids(caption, word, i):
    assert IDS[word] == i
    assert caption.encode([word])[0][0, :2].tolist() == [i, 3]


def test_specials_are_found_by_name(caption):
    found = wordpiece.specials(caption)
    assert (found.pad, found.unk, found.sos, found.eos) == (0, 1, 2, 3)
    assert found.sentinels == tuple(range(4, 204))
    assert [len(f) for f in found.coordinates] == [1000] * 4 and found.coordinates[3][999] == 4203
    assert list(found.classes) == list(wordpiece.COCO) and len(found.classes) == 80
    assert list(found.classes.values()) == list(range(4204, 4284)) and "hot dog" in found.classes


def of_words(words: list[str]) -> hf.Tokenizer:
    made = hf.Tokenizer(hf.models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.normalizer = hf.normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = hf.pre_tokenizers.BertPreTokenizer()
    made.decoder = hf.decoders.WordPiece()
    made.add_special_tokens([w for w in words if "_" in w or w.isupper()])
    return made


def test_a_vocabulary_without_coordinates_as_small_models_have(tmp_path):
    words = [*wordpiece.MARKS, *(wordpiece.sentinel(i) for i in range(200))]
    words += [f"word{chr(97 + i // 6)}{chr(97 + i % 6)}" for i in range(36)]
    of_words(words).save(str(tmp_path / "small.json"))
    made = wordpiece.load(tmp_path / "small.json", of("caption", 20, 240))
    found = wordpiece.specials(made)
    assert found.sentinels[-1] == 203 and found.coordinates == ((),) * 4
    assert found.classes == {} and made.decode(made.encode(["wordaa wordff"])[0]) == [
        "wordaa wordff"
    ]
    with pytest.raises(UserError, match=r"small.json: its vocabulary, .*size=240.*30000"):
        wordpiece.load(tmp_path / "small.json", of("caption", 20, 30_000))


def test_marks_elsewhere_are_another_vocabulary(tmp_path):
    words = ["[S_0]", "[S_1]", *reversed(wordpiece.MARKS), "red"]
    of_words(words).save(str(tmp_path / "other.json"))
    with pytest.raises(UserError, match=r"eos=2\), is not that of 'caption'.*eos=3"):
        wordpiece.load(tmp_path / "other.json", of("caption", 9, 7))


@pytest.mark.parametrize("indent", [None, 1, 2])
def test_files_come_back_byte_for_byte(tmp_path, indent):
    text = json.dumps(json.loads(vocabulary()), indent=indent, ensure_ascii=bool(indent)) + "\n"
    (tmp_path / "a.json").write_text(text)
    made = wordpiece.load(tmp_path / "a.json", of("caption", 9, len(IDS)))
    path = wordpiece.export(made, tmp_path / "there" / "b.json")
    assert path.read_bytes() == text.encode()
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]
    assert json.loads(made.backend.to_str()) == json.loads(text)


def test_the_same_lines_teach_the_same_words():
    again = wordpiece.train(iter(LINES * 3), SIZE)
    assert again.to_str(pretty=True) == vocabulary()
    assert wordpiece.train(LINES * 3, 4400).get_vocab_size() == 4400
    assert {"human", "polygon", "quick", "##s"} <= set(again.get_vocab())


def test_no_room_for_the_special_words():
    with pytest.raises(UserError, match=r"vocabulary of 4290: 4284 special words"):
        wordpiece.train(LINES, 4290)


@settings(max_examples=25)
@given(
    st.lists(
        st.sampled_from(
            [*LEARNED, *wordpiece.COCO, "v0=7", "v3=999", "v1=12", "[S_1]", "[S_17]", "[SOS]"]
        ),
        max_size=8,
    )
)
def test_words_come_back(caption, words):
    text = " ".join(words)
    tokens, length = caption.encode([text])
    assert tokens.shape == (1, 12) and tokens.dtype == length.dtype == np.int32
    assert tokens[0, length[0] - 1] == 3 and (tokens[0, length[0] :] == 0).all()
    assert caption.decode(tokens, length) == caption.decode(tokens) == [text]


def reference(word: str) -> list[str]:
    """Longest piece first, or [UNK] for the whole word."""
    pieces, at = [], 0
    while at < len(word):
        ends = (e for e in range(len(word), at, -1) if ("##" if at else "") + word[at:e] in IDS)
        if (end := next(ends, None)) is None:
            return ["[UNK]"]
        pieces.append(("##" if at else "") + word[at:end])
        at = end
    return pieces


@settings(max_examples=25)
@given(
    st.lists(st.text("abcdeghilnopsty", min_size=1, max_size=7), min_size=1, max_size=2),
    st.booleans(),
)
def test_pieces_are_the_longest_that_fit_in_lower_case(tmp_path_factory, words, upper):
    long = tokenizer(tmp_path_factory.mktemp("long"), "caption", 20)
    text = " ".join(words)
    tokens, length = long.encode([text.upper() if upper else text])
    expected = [IDS[p] for word in words for p in reference(word)]
    assert tokens[0, : length[0]].tolist() == [*expected, 3]


def test_marks_are_found_within_words_and_no_other_special_word_is(caption):
    tokens, _ = caption.encode(["fox[PAD]dog[EOS]", "fox[S_1]", "foxv0=1"])
    assert tokens[0, :4].tolist() == [IDS["fox"], 0, IDS["dog"], 3]
    assert not {5, 205} & {*tokens[1:].ravel().tolist()}


def test_class_names_are_whole_words_in_any_case(caption):
    tokens, _ = caption.encode(["Hot Dog CAT", "catalog hotdog"])
    assert tokens[0, :3].tolist() == [IDS["hot dog"], IDS["cat"], 3]
    pieces = [*reference("catalog"), *reference("hotdog")]
    assert tokens[1, : len(pieces)].tolist() == [IDS[p] for p in pieces]
    assert caption.decode(tokens) == ["hot dog cat", "catalog hotdog"]


def test_what_is_too_long_loses_its_end(caption):
    words = ["fox"] * 11
    tokens, length = caption.encode([" ".join(words), " ".join([*words, "quick"]), "fox " * 30])
    assert length.tolist() == [12, 12, 12]
    assert tokens[:, :11].tolist() == [[IDS["fox"]] * 11] * 3
    assert tokens[:, 11].tolist() == [3, IDS["quick"], IDS["fox"]]
    assert caption.decode(tokens) == [" ".join(words), " ".join([*words, "quick"]), " ".join(["fox"] * 12)]  # fmt: skip


def test_the_modality_is_the_models(caption):
    modality = of("caption", 12, len(IDS))
    assert caption.modality == modality and modality.vocabulary.eos == 3
    assert modality.layout == Sequence(max_len=12, places=512, wraps=12)
    assert modality.order == "left_to_right"


def test_as_an_artefact_it_is_the_same_tokenizer(caption, tmp_path):
    path = artefact.Path(tmp_path / "caption.safetensors")
    mark = artefact.write(path, "text", caption.config, caption.arrays, {"licence": "free"})
    loaded = tokenizers.load(f"{path}#{mark}", "caption")
    assert loaded.fingerprint == caption.fingerprint == mark and loaded.card["licence"] == "free"
    assert loaded.modality == caption.modality
    texts = ["a lazy hot dog", "", "fox " * 20]
    for a, b in zip(loaded.encode(texts), caption.encode(texts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_templates_and_what_people_type(caption):
    tokens, known = caption.encode_prompt("A quick [MASK] dog")
    assert tokens[:5].tolist() == [IDS["a"], IDS["quick"], 0, IDS["dog"], 3]
    assert known.tolist() == [True, True, False, True, True] + [False] * 7
    assert caption.read_file("  The LAZY\n dog") == "the lazy dog"
    with pytest.raises(UserError, match="the model takes 12"):
        caption.read_file("fox " * 12)


def test_words_find_their_ids_in_a_larger_vocabulary(caption, tmp_path):
    larger = hf.Tokenizer.from_str(vocabulary())
    larger.add_tokens(["zymurgy", "yak"])
    larger.save(str(tmp_path / "larger.json"))
    made = wordpiece.load(tmp_path / "larger.json", of("caption", 12, len(IDS) + 2))
    np.testing.assert_array_equal(made.ids_of(caption), np.arange(len(IDS)))
    with pytest.raises(UserError, match="2 tokens of the old vocabulary"):
        caption.ids_of(made)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "not a readable JSON"),
        ("{", "not a readable JSON"),
        ('{"model": {}}', "not a readable JSON"),
        (train_bpe({"a": 1}, 300).to_str(), "holds BPE, not WordPiece"),
        (of_words(["[UNK]", "[PAD]", "[S_0]", "a"]).to_str(), r"lacks \[SOS\], \[EOS\], \[S_1\]"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, said):
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=rf"bad\.json: .*{said}") as error:
        wordpiece.load(tmp_path / "bad.json", of("caption", 9, 300))
    assert "\n" not in str(error.value)
