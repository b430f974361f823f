"""Sentences of our own forms: an exact inverse both ways, the grammar takes what is written, and what is wrong is named."""

import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm import config
from mm.errors import UserError
from mm.tokenizers.structured import automaton as a
from mm.tokenizers.structured import color_palette, det, human_poses, metadata, sam_instance
from mm.tokenizers.structured.form import Number
from mm.tokenizers.structured.objects import Boxes, Instances, Poses
from mm.tokenizers.structured.records import Field, Metadata, Palette, Tree
from mm.tokenizers.structured.sentence import Reader
from tests.tokenizers.forms import FORMS, LABELS, value_of, walk
from tests.tokenizers.test_structured import figures, people

few = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)
every = pytest.mark.parametrize("name", FORMS)


@every
@few
@given(data=st.data())
def test_what_is_written_is_read_and_the_grammar_takes_it(name, data):
    form, value = FORMS[name], data.draw(value_of(name))
    sentence = form.write(value)
    read, state = form.grammar.run(sentence.split())
    assert read == len(sentence.split()) and a.END in form.grammar.allowed(state)
    assert form.read(sentence) == value
    row = form.to_row(form.read(sentence))  # with keys in the form's order
    assert form.from_row(row) == value
    assert form.to_row(form.read(form.write(form.from_row(row)))) == row


@every
@few
@given(rng=seeds, length=st.integers(0, 25))
def test_a_random_walk_parses_and_is_written_again(name, rng, length):
    form = FORMS[name]
    sentence = " ".join(walk(form.grammar, rng, length))
    assert form.write(form.read(sentence)) == sentence


@every
@few
@given(rng=seeds, other=seeds, at=st.floats(0, 1), more=st.integers(0, 2))
def test_a_changed_sentence_is_legal_or_refused_behind_the_change(name, rng, other, at, more):
    form = FORMS[name]
    words = walk(form.grammar, rng, 12)
    start = int(at * len(words))
    strange = ["v0=3", "v1=1", "v2=999", "[UNK]", "dog", "(", "has"]
    put = [strange[i] for i in other.integers(len(strange), size=more)]
    changed = [*words[:start], *put, *words[start + 1 :]]
    try:
        assert form.write(form.read(" ".join(changed))) == " ".join(changed)
    except UserError as e:
        place, count, found = re.findall(r"token (\d+) of (\d+): found (.*?), expected ", str(e))[0]
        assert start < int(place) <= int(count) + 1 == len(changed) + 1
        there = repr(changed[int(place) - 1]) if int(place) <= len(changed) else "the end"
        assert found == there and "\n" not in str(e)


GRAMMARS = (det, color_palette, sam_instance, metadata, human_poses)


@pytest.mark.parametrize("module", GRAMMARS)
@few
@given(rng=seeds, length=st.integers(0, 60))
def test_what_4ms_grammars_allow_its_parsers_take(module, rng, length):
    sentence = " ".join(walk(module.grammar(), rng, length))
    read = module.parse(sentence)
    drawn = (rng,) if module in (metadata, human_poses) else ()
    again = module.write(read, *drawn)
    assert sorted(again.split()) == sorted(sentence.split())
    if module is not human_poses and module is not metadata:
        assert again == sentence
    assert module.grammar().run(Reader("", sentence).tokens)[0] == len(Reader("", again).tokens)


@few
@given(people, figures, seeds)
def test_what_4ms_forms_write_its_grammars_take(bodies, known, rng):
    """Those with a random order; of the metadata's, when it happens to be that of the types."""
    ordered = " ".join(sorted(metadata.chunks(known, rng), key=lambda c: int(c[3:].split()[0])))
    for module, sentence in ((human_poses, human_poses.write(bodies, rng)), (metadata, ordered)):
        tokens = Reader("", sentence).tokens
        count, state = module.grammar().run(tokens)
        assert count == len(tokens) and a.END in module.grammar().allowed(state)


words = st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)
leaves = words.map(lambda w: (a.Tokens(tuple(w)), f"[{''.join(w)}]"))


def _grown(inner: st.SearchStrategy) -> st.SearchStrategy:
    """Rules beside regular expressions that mean the same."""
    both = st.lists(inner, min_size=1, max_size=3)
    seq = both.map(lambda p: (a.Seq(tuple(r for r, _ in p)), "".join(e for _, e in p)))
    choice = both.map(lambda p: (a.Choice(tuple(r for r, _ in p)), f"(?:{'|'.join(e for _, e in p)})"))  # fmt: skip
    maybe = inner.map(lambda p: (a.maybe(p[0]), f"(?:{p[1]})?"))
    many = inner.map(lambda p: (a.Many(p[0]), f"(?:{p[1]})*"))
    twice = inner.map(lambda p: (a.Many(p[0], 2), f"(?:{p[1]}){{0,2}}"))
    return seq | choice | maybe | many | twice


@settings(max_examples=80, deadline=None)
@given(st.recursive(leaves, _grown, max_leaves=6))
def test_an_automaton_takes_what_its_regular_expression_takes(pair):
    rule, expression = pair
    try:
        grammar = a.Grammar(rule)
    except UserError:
        return  # one token does not tell where it is
    far = grammar.shortest()
    taken = []
    for text in map("".join, itertools.chain(*(itertools.product("abc", repeat=n) for n in range(5)))):  # fmt: skip
        count, state = grammar.run(text)
        ended = count == len(text) and a.END in grammar.allowed(state)
        assert ended == bool(re.fullmatch(expression, text)), (text, expression)
        taken += [len(text)] if ended else []
    if taken:
        assert far[0] == min(taken) + 1


def test_names_that_begin_alike_share_places_and_all_are_read():
    scenes = [f"{s} {c} {m} cube" for s in ("small", "large") for c in ("red", "blue") for m in ("metal", "rubber")]  # fmt: skip
    assert len(a.Grammar(a.names(scenes)).places) == 4
    grammar = a.Grammar(a.names(LABELS))
    for label in LABELS:
        count, state = grammar.run(label.split())
        assert count == len(label.split()) and a.END in grammar.allowed(state)
    assert a.END not in grammar.allowed(grammar.run(["hot"])[1])


def test_sentences_as_they_are_spelt():
    box = {"label": "large red cube", "box": [3, 1, 40, 9]}
    assert FORMS["boxes"].write([box]) == "v0=3 v1=1 v2=40 v3=9 large red cube"
    item = box | {"point": [64, 0], "size": -0.5, "attributes": ["red", "cube"]}
    shares = FORMS["instances"].write([item | {"box": [0, 0.5, 1, 1], "point": [1, 0]}])
    assert shares == "v0=0 v1=500 v2=999 v3=999 large red cube point v0=999 v1=0 size v0=50 has red cube"  # fmt: skip
    assert FORMS["poses"].write([[2, 1.0, 0, -0.01, 0]]) == "pose v0=999 v1=1 v2=36 v3=2 v0=0"
    assert FORMS["weights"].write([{"colour": "#00ff10", "weight": 1}]) == "v0=0 v1=255 v2=16 v3=999"  # fmt: skip
    assert FORMS["metadata"].write({"share": 0.5, "n_objects": 2}) == "n_objects v0=1 share v0=100"
    assert FORMS["tree"].write(["scene", ["at", 3], "at"]) == "( scene ( at v0=3 ) at )"
    assert FORMS["text_tree"].from_row("(scene (at -180 175))") == ["scene", ["at", -180, 175]]
    assert FORMS["boxes"].write([]) == "" and FORMS["boxes"].read("") == []


def test_numbers_come_back_as_they_were_written_down():
    assert json.dumps(FORMS["metadata"].read("n_objects v0=4 share v0=7")) == '{"n_objects": 5, "share": 0.035}'  # fmt: skip
    tenths = Number(low=-3, high=4, step=0.1)
    assert [tenths.scale("").value(i) for i in range(tenths.last + 1)] == [k / 10 for k in range(-30, 41)]  # fmt: skip
    five = Number(low=-10, high=4985, step=5)
    assert [five.bin(five.scale("").value(i), "") for i in range(1000)] == list(range(1000))
    assert isinstance(five.scale("").value(3), int)
    assert FORMS["metadata"].write({"share": 17.0}) == "share v0=199"  # cut
    assert FORMS["boxes"].write([{"label": "dog", "box": np.float32([1.2, 0, 3.9, 8])}]) == "v0=1 v1=0 v2=4 v3=8 dog"  # fmt: skip


@pytest.mark.parametrize(
    ("name", "sentence", "at", "said"),
    [
        ("boxes", "v0=5 v1=2 v2=4 v3=9 dog", 3, r"'v2=4', expected v2=5 \.\. v2=64"),
        ("boxes", "v0=5 v1=2 v2=9 v3=1 dog", 4, r"'v3=1', expected v3=2 \.\. v3=9"),
        ("boxes", "v0=5 v1=2 v2=9 v3=9 hot", 6, "the end, expected 'dog'"),
        ("boxes", "v0=5 v1=2 v2=9 v3=9 dog cat", 6, r"'cat', expected v0=0 .. v0=64, 'house' or the end"),
        ("boxes", "v0=65", 1, "'v0=65', expected"),
        ("shares", "v0=5 v1=2 v2=9 v3=9 cat " * 4, 16, "'v0=5', expected the end"),
        ("instances", "v0=5 v1=2 v2=9 v3=9 dog has", 7, "the end, expected 'red' or 'cube'"),
        ("instances", "v0=5 v1=2 v2=9 v3=9 dog size v0=201", 7, "'v0=201', expected v0=0 .. v0=200"),
        ("poses", "pose v0=5 v1=2", 4, "the end, expected v2=0"),
        ("palette", "v0=1 v1=2", 3, "the end, expected v2=0 .. v2=255"),
        ("metadata", "sky foggy night n_objects v0=2", 4, "'n_objects', expected 'share' or the end"),
        ("tree", "( scene ( at ( at ( at", 7, r"'\(', expected v0=0 .. v0=64, 'red', 'at' or '\)'"),
        ("tree", "", 1, r"the end, expected '\('"),
        ("tree", "( scene ) red", 4, "'red', expected the end"),
    ],
)  # fmt: skip
def test_a_malformed_sentence_says_where(name, sentence, at, said):
    kind = FORMS[name].kind
    with pytest.raises(UserError, match=rf"^{kind} sentence, token {at} of \d+: found {said}") as e:
        FORMS[name].read(sentence)
    assert "\n" not in str(e.value)


BOX = {"label": "dog", "box": [0, 0, 1, 1]}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("boxes", [BOX | {"label": "dgo"}], "'dgo' is no label; did you mean 'dog'"),
        ("boxes", [BOX | {"box": [0, 0, 1, float("nan")]}], "corner nan cannot be written"),
        ("boxes", [BOX | {"box": [0, 0, 1, 10]}], "corner 10 cannot be written: not in 0 .. 9"),
        ("boxes", [BOX | {"box": [0, 0, "1", 1]}], "corner '1' cannot be written: it is no number"),
        ("boxes", [BOX | {"box": [0, 0, True, 1]}], "it is no number"),
        ("boxes", [BOX | {"box": [2, 0, 1, 1]}], "swapped"),
        ("boxes", [BOX | {"box": [2, 0, 1]}], "3 entries; give 4"),
        ("boxes", [{"label": "dog"}], "has no 'box'"),
        ("boxes", [BOX | {"sice": 1}], "'sice' is no part of one"),
        ("boxes", BOX, "is no list"),
        ("shares", [BOX | {"label": "cat"}] * 4, "4 of them, at most 3"),
        ("instances", [BOX], "has no 'attributes'"),
        ("instances", [BOX | {"attributes": ["green"]}], "'green' is no attribute; known: cube, red"),
        ("poses", [[0, 1, 0, 0]], "4 entries; give 5"),
        ("poses", [[0, 1, 0, 0, float("inf")]], "poses: radius inf cannot"),
        ("palette", [[0, 0, 256]], "channel 256 cannot"),
        ("weights", [{"colour": "#00FF00", "weight": 0}], "no colour; write it as '#1a2b3c'"),
        ("metadata", {"objects": 3}, "'objects' is no part of one; did you mean 'n_objects'"),
        ("metadata", {"share": float("nan")}, "metadata: share nan cannot"),
        ("metadata", {"sky": "night"}, "'night' is no sky"),
        ("tree", ["scene", ["at", ["at", ["at"]]]], "deeper than 3 levels"),
        ("tree", [], "None is no label"),
        ("tree", ["scene", None], "tree: number None"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_line(name, value, said):
    with pytest.raises(UserError, match=said) as e:
        FORMS[name].write(value)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Boxes(labels=()), "boxes.labels: none are given"),
        (lambda: Boxes(labels=("a", "a")), "'a': give each once"),
        (lambda: Boxes(labels=("a  b",)), "single blanks"),
        (lambda: Boxes(labels=("at v0=3",)), "none a coordinate"),
        (lambda: Instances(labels=("dog", "dog has"), attributes=("x",)), "'has' may mean two things"),
        (lambda: Metadata(fields=(Field(name="a", names=("x", "x b")), Field(name="b", names=("c",)))), "'b' may mean two"),
        (lambda: Metadata(fields=()), "none are given"),
        (lambda: Field(name="a"), "one of both"),
        (lambda: Number(low=0, high=1, step=0.001), "1000 steps"),
        (lambda: Number(low=0, high=1, step=0.3), "3.33333 steps"),
        (lambda: Number(low=1, high=1), "low < high"),
        (lambda: Number(high=float("nan")), "finite"),
        (lambda: Tree(labels=("(",)), "no brackets"),
        (lambda: Tree(labels=("a",), attributes=("12",)), "no number"),
        (lambda: Tree(labels=("a",), depth=0), "depth=0"),
        (lambda: FORMS["boxes"].from_row("[1"), "is no JSON"),
        (lambda: FORMS["text_tree"].from_row("(scene (at 10 1x))"), "token 6 of 8: found '1x'"),
    ],
)  # fmt: skip
def test_settings_and_rows_that_make_no_sense_are_named(make, said):
    with pytest.raises(UserError, match=said):
        make()


@every
def test_settings_survive_as_json(name):
    assert config.from_json(json.loads(json.dumps(config.to_json(FORMS[name])))) == FORMS[name]


def test_a_palette_has_seven_colours_unless_said():
    assert Palette().most == 7 and Poses(numbers=(("x", Number()),)).most == 0
