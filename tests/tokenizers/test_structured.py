"""Structured things: what is written is read back, a malformed sentence says where, and the vocabulary holds all of it."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm.errors import UserError
from mm.tokenizers.structured import color_palette, det, human_poses, metadata, sam_instance
from mm.tokenizers.structured.sentence import TOKEN, Box
from mm.tokenizers.wordpiece import COCO
from tests.tokenizers.words import tokenizer

few = settings(max_examples=20)
bins = st.integers(0, 999)
codes = st.integers(0, 1023)
sides = st.tuples(bins, bins).map(sorted)
boxes = st.builds(lambda x, y: Box(x[0] / 999, y[0] / 999, x[1] / 999, y[1] / 999), sides, sides)
objects = st.lists(st.builds(det.Detected, st.sampled_from(COCO), boxes), max_size=6).map(tuple)


def numbers(times: float, plus: float, count: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(bins.map(lambda k: (k - plus) / times), min_size=count, max_size=count).map(
        tuple
    )


people = st.lists(
    st.builds(
        human_poses.Person,
        box=boxes,
        pose=st.lists(codes, min_size=8, max_size=8).map(tuple),
        rotation=numbers(499.5, 499.5, 9),
        shape=numbers(166.5, 499.5, 10),
        camera=numbers(49.95, 49.95, 3),
    ),
    max_size=7,
).map(tuple)
colours = st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=7).map(tuple)
figures = st.lists(st.sampled_from(metadata.NAMES), unique=True).flatmap(
    lambda names: st.fixed_dictionaries(
        {n: st.sampled_from(metadata.FIGURES[n].values) for n in names}
    )
)
pixel_boxes = boxes.map(lambda b: Box(*(round(999 * x) for x in dataclasses.astuple(b))))
masks = st.builds(
    sam_instance.Instance, pixel_boxes, st.lists(codes, min_size=16, max_size=16).map(tuple)
)
points = st.lists(
    st.builds(
        sam_instance.Point,
        bins,
        bins,
        st.lists(masks, max_size=3).map(tuple),
    ),
    max_size=7,
).map(tuple)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


@few
@given(objects, colours, points)
def test_what_has_one_form_comes_back_both_ways(found, palette, asked):
    for module, thing in ((det, found), (color_palette, palette), (sam_instance, asked)):
        sentence = module.write(thing)
        assert module.parse(sentence) == thing
        assert module.write(module.parse(sentence)) == sentence


@few
@given(people, figures, seeds, seeds)
def test_what_has_a_random_order_comes_back_in_any(bodies, known, rng, other):
    for module, thing in ((human_poses, bodies), (metadata, known)):
        sentence = module.write(thing, rng)
        assert module.parse(sentence) == thing
        again = module.write(module.parse(sentence), other)
        assert sorted(again.split()) == sorted(sentence.split()) and module.parse(again) == thing


PERSON = human_poses.Person(
    box=Box(0.0, 0.25, 0.5, 1.0),
    pose=(0, 511, 512, 1023, 7, 8, 9, 10),
    rotation=(1.0, 0.0, -1.0, 0.5, -0.5, 0.1, 0.2, 0.3, 1.0000001),
    shape=(0.0, 3.0, -3.0, 1.0, 0.1, 0.2, 0.3, 0.4, 4.0, -9.0),
    camera=(0.9, 19.0, 40.0),
)


def test_sentences_as_4m_spells_them():
    assert det.write([det.Detected("hot dog", Box(0, 0.1, 0.25, 1))]) == "v0=0 v1=100 v2=250 v3=999 hot dog"  # fmt: skip
    assert color_palette.write([(0, 128, 255), (1, 2, 3)]) == "v1=2 v0=0 v0=128 v0=255 v0=1 v0=2 v0=3"  # fmt: skip
    assert sam_instance.write([sam_instance.Point(111.6, 223)]) == "point v0=111 v1=223 none"
    covered = sam_instance.Point(0, 0, (sam_instance.Instance(Box(0, 5.9, 223, 7.5), tuple(range(504, 520))),))  # fmt: skip
    ids = [*(f"v0={i}" for i in range(504, 512)), *(f"v1={i}" for i in range(8))]
    assert sam_instance.write([covered]) == " ".join(
        ["point v0=0 v1=0 polygon v0=0 v1=5 v2=223 v3=7", *ids]
    )
    figures = {"original_width": 640, "original_height": 479, "aesthetic_score": 5.5}
    assert sorted(metadata.chunks(figures, np.random.default_rng(0))) == [
        "v1=0 v0=20", "v1=1 v0=14", "v1=20 v0=2",
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    assert human_poses.write([], rng) == "none" and human_poses.parse("none") == ()
    assert det.parse("") == () == sam_instance.parse("") and metadata.parse("") == {}


def test_the_numbers_of_a_body_are_4ms_bins():
    rng = np.random.default_rng(0)
    groups = dict(
        re.findall(r"(pose|global|shape|camera) ([^a-z]*(?: ?v\d=\d+)*)", human_poses.write([PERSON], rng))
    )  # fmt: skip
    assert groups["pose"].split() == [
        "v0=0",
        "v0=511",
        "v1=0",
        "v1=511",
        "v0=7",
        "v0=8",
        "v0=9",
        "v0=10",
    ]
    for group, given_, times, plus, low, high in (
        ("global", PERSON.rotation, 499.5, 499.5, -1, 1),
        ("shape", PERSON.shape, 166.5, 499.5, -3, 3),
        ("camera", PERSON.camera, 49.95, 49.95, -1, 19),
    ):
        expected = np.round(times * np.clip(np.array(given_, np.float64), low, high) + plus)
        found = [int(w.removeprefix("v0=")) for w in groups[group].split()]
        assert found == expected.astype(int).tolist()
        assert min(found) >= 0 and max(found) <= 999


@few
@given(people.filter(bool), seeds)
def test_a_person_is_39_tokens_of_the_vocabulary(tmp_path_factory, bodies, rng):
    words = tokenizer(tmp_path_factory.mktemp("words"), "human_poses", 275)
    sentence = human_poses.write(bodies, rng)
    ids, length = words.encode([sentence])
    assert length.tolist() == [39 * len(bodies) + 1] and words.decode(ids) == [sentence]


@few
@given(objects, colours, points, figures, seeds)
def test_the_vocabulary_holds_every_sentence(tmp_path_factory, found, palette, asked, known, rng):
    words = tokenizer(tmp_path_factory.mktemp("words"), "det", 500)
    covering = sum(len(p.instances) for p in asked)
    sentences = [det.write(found), color_palette.write(palette), sam_instance.write(asked), metadata.write(known, rng)]  # fmt: skip
    counts = [5 * len(found), 1 + 3 * len(palette), 21 * covering + sum(3 + (not p.instances) for p in asked), 2 * len(known)]  # fmt: skip
    ids, length = words.encode(sentences)
    assert length.tolist() == [n + 1 for n in counts] and words.decode(ids) == sentences
    assert not (ids == 1).any(), "no [UNK]"


@few
@given(st.lists(st.tuples(boxes, st.floats(0, 1)), max_size=8))
def test_a_detectors_output_is_filtered_and_ordered(found):
    kept = det.select([det.Detected("cat", b) for b, _ in found], [s for _, s in found])
    assert len(kept) == sum(s >= 0.6 for _, s in found)
    distances = [np.hypot(d.box.x0, d.box.y0) for d in kept]
    assert distances == sorted(distances)
    assert {d.box for d in kept} == {b for b, s in found if s >= 0.6}


def test_orders_are_drawn_and_repeatable():
    write = lambda seed: human_poses.write([PERSON], np.random.default_rng(seed))
    orders = {tuple(re.findall(r"[a-z]{4,}", write(s))) for s in range(200)}
    assert len(orders) == 24 and write(3) == write(3)
    palettes = {n: [(n, n, n)] * n for n in range(1, 8)}
    drawn = [len(color_palette.draw(palettes, np.random.default_rng(s))) for s in range(100)]
    assert set(drawn) == set(range(1, 8))
    firsts = {metadata.chunks(dict.fromkeys(metadata.NAMES, 0.0), np.random.default_rng(s))[0] for s in range(200)}  # fmt: skip
    assert len(firsts) == 21


@few
@given(st.floats(-2, 2), st.integers(0, 10**5))
def test_figures_fall_into_equal_bins(share, count):
    for name, high in {
        "colorfulness": 150, "brightness": 255, "contrast": 127, "saturation": 255, "entropy": 10,
        "walkability": 1, "objectness": 1, "geometric_complexity": 0.75, "occlusion_score": 0.25,
    }.items():  # fmt: skip
        x = (np.floor(share * 49) + 0.3) / 49  # not on an edge
        assert metadata.FIGURES[name].bin(x * high) == int(np.clip(x, 0, 1) * 49)
        assert metadata.FIGURES[name].bin(high) == 49
        assert len(metadata.FIGURES[name].values) == 50
    assert metadata.FIGURES["original_width"].bin(count) == min(count // 32, 999)
    assert metadata.FIGURES["n_humans"].bin(count) == min(count, 999)
    assert metadata.FIGURES["watermark_score"].bin(share) == (share >= 0.5)
    assert metadata.FIGURES["aesthetic_score"].bin(share + 5) == (share >= -0.5) + 1 * (
        share >= 0.5
    )
    assert len(metadata.FIGURES) == 21
    for figure in metadata.FIGURES.values():
        assert [figure.bin(v) for v in figure.values] == list(range(len(figure.values)))


@pytest.mark.parametrize(
    ("name", "x", "bin"),
    [
        ("objectness", 27 / 49, 26), ("walkability", 27 / 49, 26), ("entropy", 44 / 49 * 10, 43), ("entropy", 10 / 49, 1),
        ("contrast", 127 * 4 / 49, 3), ("colorfulness", 150 * 2 / 49, 1), ("colorfulness", 150 / 49, 0), ("brightness", 255, 49),
        ("occlusion_score", 0.25 / 49, 0), ("geometric_complexity", 0.75 * 32 / 49, 31), ("watermark_score", 0.5, 1),
    ],
)  # fmt: skip
def test_what_lies_on_an_edge_falls_as_in_4m(name, x, bin):
    """Bins of 4M's own transform."""
    assert metadata.FIGURES[name].bin(x) == bin


BOX = "v0=1 v1=2 v2=3 v3=4"
HUMAN = f"human {BOX} pose" + " v0=1" * 8 + " global" + " v0=1" * 9 + " shape" + " v0=1" * 10
CODES = " v0=1" * 16


@pytest.mark.parametrize(
    ("module", "sentence", "at", "said"),
    [
        (det, f"{BOX} cat v0=1", 7, "the end, expected v1=0 .. v1=999"),
        (det, f"{BOX} hot dog v0=1 v2=2", 7, "'v2=2', expected v1="),
        (det, f"{BOX} unicorn", 5, "'unicorn', expected a COCO class"),
        (det, "v0=5 v1=2 v2=4 v3=9 cat", 3, "'v2=4', expected v2=5 .. v2=999"),
        (det, "v0=5 v1=20 v2=5 v3=19 cat", 4, "'v3=19', expected v3=20"),
        (det, "v0=01 v1=2 v2=3 v3=4 cat", 1, "'v0=01'"),
        (det, "v0=1000 v1=2 v2=3 v3=4 cat", 1, "'v0=1000'"),
        (det, f"{BOX} [UNK]", 5, r"'\[UNK\]'"),
        (human_poses, "", 1, "the end, expected 'human' or 'none'"),
        (human_poses, "none none", 2, "'none', expected the end"),
        (human_poses, f"{HUMAN} camera v0=1 v0=1", 39, "the end, expected v0="),
        (human_poses, f"{HUMAN} pose", 36, "'pose', expected 'camera'"),
        (human_poses, f"{HUMAN} camera v0=1 v0=1 v0=1 none", 40, "'none', expected 'human'"),
        (human_poses, f"human {BOX} pose v0=512", 7, r"'v0=512', expected v0=0 \.\. v0=511"),
        (human_poses, f"human {BOX} pose v2=5", 7, r"'v2=5', expected v0=0 \.\. v0=511 or v1=0"),
        (human_poses, " ".join([f"{HUMAN} camera v0=1 v0=1 v0=1"] * 8), 274, "the end after 7 people"),
        (color_palette, "", 1, "the end, expected v1=1 .. v1=7"),
        (color_palette, "v1=8", 1, "'v1=8'"),
        (color_palette, "v1=1 v0=1 v0=2 v0=256", 4, "'v0=256', expected v0=0 .. v0=255"),
        (color_palette, "v1=1 v0=1 v0=2 v0=3 v0=4", 5, "'v0=4', expected the end"),
        (metadata, "v1=21 v0=0", 1, "'v1=21', expected a type"),
        (metadata, "v1=19 v0=2", 2, "'v0=2', expected v0=0 .. v0=1"),
        (metadata, "v1=3 v0=2 v1=3 v0=2", 3, "'v1=3', expected a type .* not given before"),
        (metadata, "v1=3", 2, "the end"),
        (sam_instance, "point v0=1 v1=2", 4, "the end, expected 'polygon' or 'none'"),
        (sam_instance, "none", 1, "'none', expected 'point'"),
        (sam_instance, f"point v0=1 v1=2 polygon {BOX}{CODES} v0=1", 25, "'v0=1', expected 'polygon', 'point' or the end"),
        (sam_instance, f"point v0=1 v1=2 polygon {BOX}{CODES} none", 25, "'none', expected"),
        (sam_instance, "point v0=1 v1=2 none none", 5, "'none', expected 'point'"),
    ],
)  # fmt: skip
def test_a_malformed_sentence_says_where(module, sentence, at, said):
    name = module.__name__.rpartition(".")[2]
    with pytest.raises(
        UserError, match=rf"^{name} sentence, token {at} of \d+: found .*{said}"
    ) as e:
        module.parse(sentence)
    assert "\n" not in str(e.value)


@settings(max_examples=60)
@given(
    objects, points, colours, st.floats(0, 1),
    st.sampled_from(["", "cat", "none", "point", "polygon", "v0=3", "v1=3", "v2=3", "v3=998", "hot"]),
)  # fmt: skip
def test_a_changed_sentence_is_legal_or_refused_behind_the_change(found, asked, palette, at, word):
    for module, thing in ((det, found), (sam_instance, asked), (color_palette, palette)):
        words = module.write(thing).split()
        start = int(at * len(words))
        changed = " ".join([*words[:start], *([word] if word else []), *words[start + 1 :]])
        before = len(TOKEN.findall(" ".join(words[:start])))
        try:
            assert module.write(module.parse(changed)) == changed
        except UserError as e:
            place, count = map(int, re.findall(r"token (\d+) of (\d+)", str(e))[0])
            assert max(before, 1) <= place <= count + 1


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda: det.write([det.Detected("cta", Box(0, 0, 1, 1))]), "did you mean 'cat'"),
        (lambda: det.write([det.Detected("cat", Box(0, 0, 120, 1))]), "120 cannot be written: not in 0 .. 1"),
        (lambda: det.write([det.Detected("cat", Box(0.5, 0, 0.4, 1))]), "swapped"),
        (lambda: det.write([det.Detected("cat", Box(0, float("nan"), 1, 1))]), "nan cannot"),
        (lambda: human_poses.write([PERSON] * 8, np.random.default_rng(0)), "8 people, at most 7"),
        (lambda: color_palette.write([]), "1 to 7 colours"),
        (lambda: color_palette.write([(0, 0, 0)] * 8), "1 to 7 colours"),
        (lambda: color_palette.write([(0, 0, 0.5)]), "whole numbers"),
        (lambda: color_palette.write([(0, 256, 0)]), "whole numbers"),
        (lambda: metadata.write({"entropie": 1}, np.random.default_rng(0)), "did you mean 'entropy'"),
        (lambda: metadata.write({"entropy": float("nan")}, np.random.default_rng(0)), "not a number"),
        (lambda: sam_instance.write([sam_instance.Point(0, 1000)]), "1000 cannot be written"),
        (lambda: sam_instance.write([sam_instance.Point(0, 0, (sam_instance.Instance(Box(0, 0, 1, 1), (1,)),))]), "a mask of 1 ids; it has 16"),
        (lambda: sam_instance.write([sam_instance.Point(0, 0, (sam_instance.Instance(Box(0, 0, 1, 1), (1024,) * 16),))]), "code 1024 cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_line(write, said):
    with pytest.raises(UserError, match=said) as e:
        write()
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("part", ["pose", "rotation", "shape", "camera"])
def test_a_person_with_other_counts_is_refused(part):
    wrong = dataclasses.replace(PERSON, **{part: getattr(PERSON, part)[1:]})
    with pytest.raises(
        UserError, match=f"human_poses: {'global' if part == 'rotation' else part} has"
    ):
        human_poses.write([wrong], np.random.default_rng(0))
