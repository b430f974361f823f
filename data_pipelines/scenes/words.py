"""Captions and trees of scenes, and their parsers: what a sentence claims comes back exactly.

    three objects on the ground: a small shiny red ball, a big block and a cylinder. the block stands left of the cylinder.

A caption need not say all: attributes, objects and their number may be left out. Each object that it names is told from
all others by what is said of it.
"""

import dataclasses
import itertools
import re
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

from data_pipelines.scenes.world import ATTRIBUTES, COLOURS, MOST, Scene, Thing
from mm.errors import UserError

WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny"), "large": ("large", "big"),
    "rubber": ("rubber", "matte"), "metal": ("metal", "shiny"),
    "cube": ("cube", "block"), "sphere": ("sphere", "ball"), "cylinder": ("cylinder", "drum"),
    **{c: (c,) for c in COLOURS},
}  # fmt: skip
"""How each value is called; the first is its name."""
MEANS = {word: value for value, words in WORDS.items() for word in words}
OF = {value: name for name, values in ATTRIBUTES.items() for value in values}
ORDERS = (("size", "colour", "material"), ("size", "material", "colour"))
NUMBERS = ("one", "two", "three", "four", "five", "six")
OPENINGS = ("{} objects on the ground", "there are {} objects", "a scene with {} things", "we see {} things")  # fmt: skip
RELATIONS = ("left of", "right of", "in front of", "behind")
VERBS = ("is", "stands", "can be seen")
LEFT_OUT = 0.25  # of the attributes, where the rest tells an object from all others
ASIDE, NEARER = 0.04, 0.3  # share of the picture, metres: what is closer is called neither

Said = tuple[str | None, ...]
"""Size, colour, material and shape of an object; None = not said."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Claims:
    """What a caption says.

    Attributes:
      count: objects that there are; None = not said.
      things: those that are named; the shape is always said.
      relations: (number in `things`, one of `RELATIONS`, number in `things`).
    """

    count: int | None
    things: tuple[Said, ...]
    relations: tuple[tuple[int, str, int], ...] = ()


def fits(said: Said, thing: Thing) -> bool:
    """Whether what is said is true of a thing."""
    return all(s is None or s == getattr(thing, a) for s, a in zip(said, ATTRIBUTES, strict=True))


def related(scene: Scene) -> list[tuple[int, str, int]]:
    """All relations that hold, by numbers of things: by where their middles are in the picture, and how deep."""
    places, found = scene.places(1), []
    for a, b in itertools.permutations(range(len(places)), 2):
        if places[a, 0] < places[b, 0] - ASIDE:
            found += [(a, "left of", b), (b, "right of", a)]
        if places[a, 2] < places[b, 2] - NEARER:
            found += [(a, "in front of", b), (b, "behind", a)]
    return found


def holds(claims: Claims, scene: Scene) -> bool:
    """Whether all that is claimed is true, and each thing that is named is one alone."""
    named = [[k for k, t in enumerate(scene.things) if fits(said, t)] for said in claims.things]
    if any(len(k) != 1 for k in named) or len({k[0] for k in named}) != len(named):
        return False
    true = {(a, r, b) for a, r, b in related(scene)}
    return claims.count in (None, len(scene.things)) and all(
        (named[a][0], r, named[b][0]) in true for a, r, b in claims.relations
    )


def claims_of(scene: Scene, rng: np.random.Generator) -> Claims:
    """What a caption of a scene shall say."""
    count = len(scene.things)
    named = sorted(rng.permutation(count)[: max(1, count - int(rng.integers(0, 2)))])
    said = tuple(_told(scene.things, k, rng) for k in named)
    place = {int(k): i for i, k in enumerate(named)}
    true = [(place[a], r, place[b]) for a, r, b in related(scene) if a in place and b in place]
    chosen = rng.permutation(len(true))[: int(rng.integers(0, 3))]
    relations = tuple(true[i] for i in chosen)
    return Claims(count=count if rng.random() < 0.75 else None, things=said, relations=relations)


def _told(things: Sequence[Thing], k: int, rng: np.random.Generator) -> Said:
    """Attributes of thing k, some left out, which no other one fits."""
    every = tuple(getattr(things[k], a) for a in ATTRIBUTES)
    drawn = rng.random(len(every)) < LEFT_OUT
    said = tuple(
        None if d and a != "shape" else v for v, d, a in zip(every, drawn, ATTRIBUTES, strict=True)
    )
    return said if sum(fits(said, t) for t in things) == 1 else every


def write(claims: Claims, rng: np.random.Generator) -> str:
    """Claims -> caption; `rng` chooses the words."""
    pick = lambda options: options[int(rng.integers(len(options)))]
    listed = [f"a {_phrase(said, pick)}" for said in claims.things]
    text = ", ".join(listed[:-1]) + (" and " if listed[:-1] else "") + listed[-1]
    if claims.count is not None:
        text = f"{pick(OPENINGS).format(NUMBERS[claims.count - 1])}: {text}"
    sentences = [text]
    for a, relation, b in claims.relations:
        to = "to the " if relation in RELATIONS[:2] and rng.random() < 0.5 else ""
        one, other = _phrase(claims.things[a], pick), _phrase(claims.things[b], pick)
        sentences.append(f"the {one} {pick(VERBS)} {to}{relation} the {other}")
    return ". ".join(sentences) + "."


def _phrase(said: Said, pick) -> str:
    values = dict(zip(ATTRIBUTES, said, strict=True))
    order = (*pick(ORDERS), "shape")
    return " ".join(pick(WORDS[value]) for a in order if (value := values[a]))


class _Reader:
    """Takes the words of a caption one after the other."""

    def __init__(self, text: str):
        self.words, self.at = re.findall(r"[a-z]+|[^a-z\s]", text), 0

    def takes(self, *phrases: str) -> str | None:
        """The first of the phrases that comes next, which is taken; None where none does."""
        for phrase in phrases:
            words = re.findall(r"[a-z]+|[^a-z\s]", phrase)
            if self.words[self.at : self.at + len(words)] == words:
                self.at += len(words)
                return phrase
        return None

    def must(self, what: str, *phrases: str) -> str:
        return self.takes(*phrases) or self.refuse(what)

    def refuse(self, expected: str, back: int = 0) -> NoReturn:
        """Raises UserError: the next word (or one `back` of it) is not what was expected."""
        self.at -= back
        found = repr(self.words[self.at]) if self.at < len(self.words) else "the end"
        raise UserError(
            f"caption, word {self.at + 1} of {len(self.words)}: found {found}, expected {expected}; "
            "mend the caption, or generate it again"
        )

    def thing(self) -> Said:
        """Takes adjectives and a noun."""
        found: dict[str, str] = {}
        while "shape" not in found:
            open_ = [w for w, value in MEANS.items() if OF[value] not in found]
            value = MEANS[self.must("an adjective that was not given, or a noun", *open_)]
            found[OF[value]] = value
        said = tuple(found.get(a) for a in ATTRIBUTES)
        if tuple(a for a in found if a != "shape") not in _in_order(found):
            self.refuse("adjectives before it in the usual order, size first", back=1)
        return said


def _in_order(found) -> set[tuple[str, ...]]:
    return {tuple(a for a in order if a in found) for order in ORDERS}


def parse(text: str) -> Claims:
    """Caption -> what it claims.

    Raises:
      UserError: no caption that `write` can have made, with the number of the word.
    """
    reader, count = _Reader(text), None
    openings = {o.format(n) + ":": i + 1 for o in OPENINGS for i, n in enumerate(NUMBERS)}
    if opening := reader.takes(*openings):
        count = openings[opening]
    reader.must("'a', or how many objects there are", "a")
    things = [reader.thing()]
    while comma := reader.takes(",", "and"):
        reader.must("'a'", "a")
        things.append(reader.thing())
        if comma == "and":
            break
        if reader.words[reader.at : reader.at + 1] not in ([","], ["and"]):
            reader.refuse("',' or 'and'")
    reader.must("'.', ',' or 'and'", ".")
    if len(set(things)) != len(things) or len(things) > (count or MOST):
        reader.refuse(f"at most {count or MOST} objects, none of them twice")
    relations = []
    while reader.at < len(reader.words):
        relations.append(_relation(reader, things))
    return Claims(count=count, things=tuple(things), relations=tuple(relations))


def _relation(reader: _Reader, things: list) -> tuple[int, str, int]:
    def referred() -> int:
        reader.must("'the'", "the")
        said = reader.thing()
        return things.index(said) if said in things else reader.refuse("an object named before", 1)

    a = referred()
    reader.must("a verb", *VERBS)
    aside = reader.takes("to the")
    relation = reader.must("a relation", *(RELATIONS[:2] if aside else RELATIONS))
    b = referred()
    reader.must("'.'", ".")
    return a, relation, b


Tree = str | tuple["Tree", ...]


def tree_of(scene: Scene) -> Tree:
    """A scene as nested tuples: what it stands on, and its things from left to right.

    `at` are whole percents of the picture across and down, `depth` decimetres.
    """
    things = tuple(
        (t.shape, t.size, t.colour, t.material, ("at", f"{round(100 * x)}", f"{round(100 * y)}"), ("depth", f"{round(10 * z)}"))
        for t, (x, y, z) in zip(scene.things, scene.places(1), strict=True)
    )  # fmt: skip
    return ("scene", ("sky", scene.sky), ("ground", scene.ground, *things))


def write_tree(tree: Tree) -> str:
    """(a (b c)) for ("a", ("b", "c"))."""
    return tree if isinstance(tree, str) else f"({' '.join(map(write_tree, tree))})"


def parse_tree(text: str) -> Tree:
    """The inverse of `write_tree`.

    Raises:
      UserError: brackets that do not match, with the number of the token.
    """
    tokens, open_ = re.findall(r"[()]|[^()\s]+", text), [[]]
    for i, token in enumerate(tokens):
        wrong = f"tree, token {i + 1} of {len(tokens)}: found {token!r}"
        if len(open_) == 1 and open_[0]:
            raise UserError(f"{wrong}, expected the end; one tree is one pair of brackets")
        if token == "(":
            open_.append([])
        elif token == ")":
            if len(open_) == 1 or not open_[-1]:
                raise UserError(f"{wrong}, expected a word or '('; close only what is open and not empty")  # fmt: skip
            done = tuple(open_.pop())
            open_[-1].append(done)
        elif len(open_) == 1:
            raise UserError(f"{wrong}, expected '('; a tree begins with one")
        else:
            open_[-1].append(token)
    if len(open_) != 1 or not open_[0]:
        raise UserError(
            f"tree of {len(tokens)} tokens: ends before it is closed; generate it again"
        )
    return open_[0][0]
