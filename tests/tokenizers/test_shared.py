"""One vocabulary for several modalities: of each kind, texts and sentences come back, and each word of a form is one id."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.scenes import record
from data_pipelines.scenes.source import as_row
from mm import tokenizers
from mm.config import to_json
from mm.errors import UserError
from mm.space import TokenSpace
from mm.tasks.shared_vocabulary import TrainSharedVocabulary, learned
from mm.tokenizers import shared, wordpiece
from mm.tokenizers.structured.form import Number
from mm.tokenizers.structured.objects import Boxes
from mm.tokenizers.structured.records import Field, Metadata, Tree
from mm.tokenizers.text import to_bytes

SHIPPED = Path(__file__).parents[2] / "tokenizers" / "scene_text.safetensors"
STEP = Number(low=0, high=64, step=1)
FORMS = {
    "boxes": Boxes(labels=("large red cube", "hot dog"), x=STEP, y=STEP),
    "facts": Metadata(fields=(Field(name="n_things", number=STEP), Field(name="sky", names=("day", "foggy é")))),
    "tree": Tree(labels=("scene", "at", "a"), attributes=("red",), number=STEP, text=True),
}  # fmt: skip
ROWS = {
    "caption": ["a large red cube stands", "a dog [EOS] v0=3 (at", "a hot dog", ""],
    "boxes": ['[{"label": "hot dog", "box": [0, 1, 2, 64]}]', "[]"],
    "facts": ['{"n_things": 3, "sky": "foggy \\u00e9"}', "{}"],
    "tree": ["(scene (at 5 10) red)", "(a)"],
}
LENGTHS = {"caption": 60, "boxes": 16, "facts": 8, "tree": 16}
few = settings(max_examples=20, deadline=None)
kinds = pytest.mark.parametrize("kind", shared.KINDS)
exact = pytest.mark.parametrize("kind", ["bpe", "bytes"])


class Column(list):
    def __getitem__(self, rows):
        return [list.__getitem__(self, i) for i in rows]


class Data:
    def raw(self, split: str) -> dict[str, Column]:
        return {name: Column(rows) for name, rows in ROWS.items()}


@functools.cache
def tokenizer(kind: str, name: str):
    texts = dict.fromkeys(ROWS["caption"], 3)
    made, own = learned(kind, texts, 300, 5, shared.words_of(FORMS))
    settings_ = {"kind": kind, "vocabulary": "words", "fold_case": True, "lengths": LENGTHS, **own}
    settings_["forms"] = {n: to_json(f) for n, f in FORMS.items()}
    meta = {"config": settings_, "fingerprint": "", "card": {}}
    return shared.load(name, meta, {"vocabulary": to_bytes(made)})


@kinds
def test_rows_come_back_and_the_modalities_share_one_vocabulary(kind):
    for name, rows in ROWS.items():
        t = tokenizer(kind, name)
        ids, length = t.encode(rows)
        assert ids.shape == (len(rows), LENGTHS[name]) and ids.dtype == length.dtype == np.int32
        if (kind, name) != ("wordpiece", "caption"):  # which is no exact one, and spells its marks
            assert t.decode(ids, length) == t.decode(ids) == rows
        eos = t.modality.vocabulary.eos
        if kind != "wordpiece":
            assert [row.tolist().index(eos) + 1 for row in ids] == length.tolist()
    space = TokenSpace(tuple(tokenizer(kind, n).modality for n in ROWS))
    assert space.size == space["tree"].vocabulary.size and space["boxes"].order == "left_to_right"


@kinds
def test_special_words_are_one_id_each_found_by_name(kind):
    text = tokenizer(kind, "caption")
    found = [text.id_of(w) for w in (*shared.special_words(5), *shared.words_of(FORMS))]
    assert None not in found and len(set(found)) == len(found)
    if kind != "wordpiece":  # whose JSON has them all
        spelt = [text.backend.id_to_token(i).strip("<>Ġ") for i in found]
        assert spelt == [*shared.special_words(5), *shared.words_of(FORMS)]
    if kind == "wordpiece":
        assert len(wordpiece.specials(text).coordinates[3]) == 1000
    for name, form in FORMS.items():
        t = tokenizer(kind, name)
        for row in ROWS[name]:
            words = form.write(form.from_row(row)).split()
            assert t.encode([row])[1].tolist() == [len(words) + 1]


@exact
@few
@given(texts=st.lists(st.text(max_size=12), max_size=4))
def test_any_text_comes_back_whatever_it_spells(kind, texts):
    texts = [*texts, "[EOS] v0=3 ( é", "[S_1]"]
    t = tokenizer(kind, "caption")
    ids, length = t.encode(texts)
    assert t.decode(ids, length) == texts
    inside = ids[np.arange(ids.shape[1]) < (length - 1)[:, None]]
    specials = {t.id_of(w) for w in (*shared.special_words(5), "(", "n_things")}
    assert not specials & set(inside.tolist())


def test_a_word_of_a_text_is_the_same_id_in_a_sentence():
    cube = tokenizer("bpe", "boxes").ids["cube"]
    assert cube in tokenizer("bpe", "caption").encode(["a large red cube stands"])[0]


@kinds
@few
@given(seed=st.integers(0, 2**32 - 1))
def test_any_ids_decode_and_what_is_malformed_is_named(kind, seed):
    t = tokenizer(kind, "boxes")
    size = t.modality.vocabulary.size
    ids = np.random.default_rng(seed).integers(-5, size + 5, (3, 16))
    decoded = t.decode(ids)
    assert [type(row) for row in decoded] == [str] * 3
    with pytest.raises(
        UserError, match=r"^row \d+(, token \d+: id|: boxes sentence, token \d+ of)"
    ):
        t.values(ids)


def test_a_malformed_row_comes_back_as_its_words():
    t = tokenizer("bpe", "boxes")
    ids, length = t.encode(ROWS["boxes"])
    ids[0, 4] = t.ids["cube"]
    assert t.decode(ids, length) == ["v0=0 v1=1 v2=2 v3=64 cube dog", "[]"]
    with pytest.raises(UserError, match="row 0: boxes sentence, token 5 of 6: found 'cube'"):
        t.values(ids, length)
    ids[0, 2] = 10**6
    with pytest.raises(UserError, match="row 0, token 3: id 1000000 is not in 0"):
        t.values(ids)
    assert t.values(*t.encode([[{"label": "hot dog", "box": [0, 1, 2, 64]}]]))[0][0]["box"][3] == 64


def test_what_cannot_be_written_says_which_row():
    t = tokenizer("bpe", "boxes")
    with pytest.raises(UserError, match="row 1: boxes: 'hut dog' is no label; did you mean 'hot"):
        t.encode(["[]", '[{"label": "hut dog", "box": [0, 0, 1, 1]}]'])
    with pytest.raises(UserError, match="row 0: boxes: corner nan"):
        t.encode(['[{"label": "hot dog", "box": [0, 0, 1, NaN]}]'])
    with pytest.raises(UserError, match=r"row 0: 19 tokens with the end, modality 'boxes' has 16"):
        t.encode([[{"label": "hot dog", "box": [0, 0, 1, 1]}] * 3])
    with pytest.raises(UserError, match="row 0: boxes: '\\[' is no JSON"):
        t.encode(["["])


def test_templates():
    t = tokenizer("bpe", "boxes")
    ids, known = t.encode_prompt("v0=3 v1=4 [MASK] [MASK] hot dog")
    assert known.tolist() == [True, True, False, False, True, True, True] + [False] * 9
    assert ids[6] == t.modality.vocabulary.eos and ids[4] == t.ids["hot"]
    assert t.encode_prompt("v0=3 ...")[1].sum() == 1 and t.encode_prompt("...")[1].sum() == 0
    for template, said in (("hot dog", "leaves nothing"), ("hut ...", "token 1 of 1: .*'hut'; did you mean 'hot'")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            t.encode_prompt(template)
    with pytest.raises(UserError, match="18 tokens"):
        t.encode_prompt("v0=3 " * 16 + "[MASK]")


def test_files(tmp_path):
    t = tokenizer("bpe", "tree")
    (tmp_path / "a.txt").write_text("(scene (at 4.8 10)\n red)")
    row = t.read_file(tmp_path / "a.txt")
    assert row == t.read_file("(scene (at 5 10) red)") == "(scene (at 5 10) red)"
    assert t.write_file(row, tmp_path / "b").read_text() == row + "\n"
    with pytest.raises(UserError, match="no such file"):
        t.read_file(tmp_path / "c.json")


@kinds
def test_the_task_writes_what_load_reads(kind, tmp_path):
    task = TrainSharedVocabulary(
        name="words", lengths=LENGTHS, forms=FORMS, kind=kind, size=300, card={"licence": "free"}
    )
    task.validate()
    path = task.build(Data()).export({}, {}, tmp_path)
    made = {name: tokenizers.load(str(path), name) for name in ROWS}
    for name in FORMS:
        assert made[name].decode(*made[name].encode(ROWS[name])) == ROWS[name]
        figures = made[name].card["validation"][name]
        assert figures["exact"] == figures["stable"] == 1.0
    again = task.build(Data()).export({}, {}, tmp_path / "again")
    assert tokenizers.load(str(again), "tree").fingerprint == made["tree"].fingerprint
    with pytest.raises(UserError, match=r"'boxs'.*did you mean 'boxes'"):
        tokenizers.load(str(path), "boxs")
    if kind != "wordpiece":
        assert path.stat().st_size < 20_000


def test_training_rows_that_do_not_fit_are_named(tmp_path):
    task = TrainSharedVocabulary(lengths=LENGTHS | {"tree": 9}, forms=FORMS)
    with pytest.raises(UserError, match="column 'tree': row 0: 10 tokens"):
        task.build(Data()).export({}, {}, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"kind": "bp"}, "kind='bp'"),
        ({"lengths": {}}, "lengths"),
        ({"lengths": {"a": 1}}, "2 places"),
        ({"forms": {"tre": FORMS["tree"]}}, "'tre' has no length; did you mean 'tree'"),
        ({"size": 100}, "size=100"),
        ({"sentinels": 0}, "sentinels=0"),
    ],
)
def test_bad_settings_are_named(changed, said):
    with pytest.raises(UserError, match=said):
        TrainSharedVocabulary(**({"lengths": LENGTHS} | changed)).validate()


def test_a_form_of_other_words_is_refused():
    other = Boxes(labels=("zebra crossing",))
    with pytest.raises(UserError, match=r"2 words of its sentences .*\(zebra, crossing\)|crossing, zebra"):  # fmt: skip
        shared.SentenceTokenizer(other, tokenizer("bpe", "caption"))


@pytest.mark.parametrize(
    ("saved", "said"),
    [
        (
            {"type": "mm.tokenizers.structured.objects:Boxes", "lables": ["a"]},
            "other fields by now",
        ),
        ({"type": "mm.tokenizers.structured.form:Number"}, "is no form"),
        ({"type": "tokenizers/gone.py:Form"}, "is no form, or not here"),
    ],
)
def test_a_class_that_is_not_there_is_named(saved, said):
    config = {"kind": "bytes", "vocabulary": "w", "fold_case": True, "lengths": {"x": 9}}
    config |= {"forms": {"x": saved}, "sentinels": 2, "words": []}
    meta = {"config": config, "fingerprint": "", "card": {}}
    with pytest.raises(UserError, match=f"modality 'x': .*{said}"):
        shared.load("x", meta, {"vocabulary": to_bytes(shared.of_bytes())})


def test_shipped_vocabulary_writes_scenes():
    scene = record(seed=5, index=3)
    for name in ("caption", "tree", "boxes", "metadata", "palette"):
        t = tokenizers.load(str(SHIPPED), name)
        row = as_row(name, scene[name])
        (again,) = t.decode(*t.encode([row]))
        if name != "metadata":
            assert again == row
        else:  # rounded to its steps
            there, back = json.loads(row), json.loads(again)
            assert list(back) == list(there) and t.decode(*t.encode([again])) == [again]
            assert all(back[k] == v or abs(back[k] - v) <= 0.25 for k, v in there.items())
    assert SHIPPED.stat().st_size < 300_000 and {"data", "licence"} <= set(t.card)
