"""Captions claim what is true and come back exactly; so do trees; what is malformed is refused by its word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.scenes.drawing import draw
from data_pipelines.scenes.words import (
    RELATIONS,
    Claims,
    claims_of,
    holds,
    parse,
    parse_tree,
    related,
    tree_of,
    write,
    write_tree,
)
from data_pipelines.scenes.world import ATTRIBUTES
from mm.errors import UserError

SCENES = [draw(7, i, (1, 6)) for i in range(40)]

said = st.tuples(
    *(st.one_of(st.none(), st.sampled_from(v)) for n, v in ATTRIBUTES.items() if n != "shape"),
    st.sampled_from(ATTRIBUTES["shape"]),
)


@st.composite
def claims(draw_) -> Claims:
    things = tuple(draw_(st.lists(said, min_size=1, max_size=6, unique=True)))
    number = st.integers(0, len(things) - 1)
    relations = draw_(st.lists(st.tuples(number, st.sampled_from(RELATIONS), number), max_size=4))
    count = draw_(st.one_of(st.none(), st.integers(len(things), 6)))
    return Claims(count=count, things=things, relations=tuple(relations))


@given(claims(), st.integers(0, 2**31))
def test_any_claims_come_back_from_any_wording(claimed, seed):
    assert parse(write(claimed, np.random.default_rng(seed))) == claimed


@pytest.mark.parametrize("scene", SCENES[:20])
def test_captions_are_true_and_tell_objects_apart(scene):
    rng = np.random.default_rng(0)
    texts = [write(claims_of(scene, rng), rng) for _ in range(20)]
    assert all(holds(parse(text), scene) for text in texts)
    assert len(set(texts)) > 15


def test_relations_are_those_of_the_places():
    for scene in SCENES:
        places, found = scene.places(1), set(related(scene))
        for a, b in [(a, b) for a in range(len(places)) for b in range(len(places)) if a != b]:
            left, near = places[b, 0] - places[a, 0], places[b, 2] - places[a, 2]
            assert ((a, "left of", b) in found) == (left > 0.04) == ((b, "right of", a) in found)
            assert ((a, "in front of", b) in found) == (near > 0.3) == ((b, "behind", a) in found)


def test_what_is_not_true_is_known():
    scene = next(s for s in SCENES if len(s.things) >= 3)
    rng = np.random.default_rng(1)
    claimed = next(c for c in iter(lambda: claims_of(scene, rng), None) if c.relations)
    a, relation, b = claimed.relations[0]
    for wrong in (
        Claims(count=len(scene.things) + 1, things=claimed.things),
        Claims(count=None, things=claimed.things, relations=((b, relation, a),)),
        Claims(count=None, things=((None, None, None, "cube"), (None, None, None, "sphere"),
                                   (None, None, None, "cylinder"), claimed.things[0])),
    ):  # fmt: skip
        assert not holds(wrong, scene)


@pytest.mark.parametrize(
    "text, word, expected",
    [
        ("two objects on the ground: a red ball and a blue box.", "word 13 of 14", "an adjective"),
        ("a red red ball.", "word 3 of 5", "an adjective"),
        ("a red small ball.", "word 4 of 5", "usual order"),
        ("a red ball", "the end", "'.'"),
        ("a ball and a ball.", "the end", "none of them twice"),
        ("one objects on the ground: a ball and a cube.", "the end", "at most 1"),
        ("a ball. the cube is left of the ball.", "word 5 of 11", "an object named before"),
        ("a ball and a cube. the cube is to the behind the ball.", "word 12", "a relation"),
        ("a ball, a cube.", "word 6", "','"),
        ("", "the end", "'a'"),
    ],
)
def test_malformed_captions_are_refused_by_their_word(text, word, expected):
    with pytest.raises(UserError) as error:
        parse(text)
    assert word in str(error.value) and expected in str(error.value)


trees = st.recursive(
    st.text("abz019-", min_size=1, max_size=4),
    lambda inner: st.lists(inner, min_size=1, max_size=4).map(tuple),
    max_leaves=12,
).filter(lambda t: isinstance(t, tuple))


@given(trees)
def test_trees_come_back(tree):
    assert parse_tree(write_tree(tree)) == tree


def test_a_scene_is_in_its_tree():
    for scene in SCENES:
        _, sky, (_, ground, *things) = parse_tree(write_tree(tree_of(scene)))
        assert sky == ("sky", scene.sky) and ground == scene.ground
        names = [
            f"{size} {colour} {material} {shape}" for shape, size, colour, material, *_ in things
        ]
        assert names == [t.name for t in scene.things]


@pytest.mark.parametrize(
    "text, place", [("(a (b)", "3 tokens|5 tokens"), ("(a) b", "token 4"), ("a", "token 1"), ("()", "token 2"), (")", "token 1"), ("", "0 tokens")]
)  # fmt: skip
def test_malformed_trees_are_refused(text, place):
    with pytest.raises(UserError, match=place):
        parse_tree(text)
