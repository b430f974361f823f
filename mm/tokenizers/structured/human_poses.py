"""People (SMPL bodies of 4DHumans): per person "human", a box, and in random order four groups of numbers, 39 tokens.

Source: Goel et al. 2023 (4DHumans); Loper et al. 2015 (SMPL).
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from mm.errors import UserError
from mm.tokenizers.structured.automaton import (
    Choice,
    Grammar,
    Many,
    Rule,
    Seq,
    bins,
    codes,
    corners,
    word,
)
from mm.tokenizers.structured.sentence import Box, Reader, Scale, code
from mm.tokenizers.wordpiece import BINS, coordinate

MOST = 7
CODES = 8
ENTRIES = {"global": 9, "shape": 10, "camera": 3}
SCALES = {
    "global": Scale("rotation", 499.5, 499.5),
    "shape": Scale("shape", 166.5, 499.5),
    "camera": Scale("camera", 49.95, 49.95),
}
"""Ends of the ranges: -1 .. 1, -3 .. 3, -1 .. 19. What is beyond is cut (4M says so of the camera)."""
GROUPS = ("pose", *ENTRIES)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """One body.

    Attributes:
      pose: 8 ids of the Memcodes tokenizer of body poses, 0 .. 1023.
      rotation: 9 entries of the global rotation matrix, row by row. shape: 10 betas. camera: 3 numbers.
    """

    box: Box
    pose: tuple[int, ...]
    rotation: tuple[float, ...]
    shape: tuple[float, ...]
    camera: tuple[float, ...]


def write(people: Sequence[Person], rng: np.random.Generator) -> str:
    """People -> sentence, "none" for nobody. `rng` orders the groups of each.

    Raises:
      UserError: more than 7, or a person with more or fewer numbers, or beyond what can be written.
    """
    if len(people) > MOST:
        raise UserError(f"human_poses: {len(people)} people, at most {MOST} are written; choose")
    return " ".join(_person(p, rng) for p in people) or "none"


def _person(person: Person, rng: np.random.Generator) -> str:
    numbers = {"global": person.rotation, "shape": person.shape, "camera": person.camera}
    wrong = [k for k, n in ENTRIES.items() if len(numbers[k]) != n]
    if wrong or len(person.pose) != CODES:
        raise UserError(
            f"human_poses: {wrong[0] if wrong else 'pose'} has another count of numbers; "
            f"a person has pose {CODES}, " + ", ".join(f"{k} {n}" for k, n in ENTRIES.items())
        )
    groups = {"pose": [code(i) for i in person.pose]} | {
        k: [coordinate(0, SCALES[k].bin(x)) for x in numbers[k]] for k in ENTRIES
    }
    order = [GROUPS[i] for i in rng.permutation(len(GROUPS))]
    return " ".join(["human", person.box.write(), *(w for k in order for w in (k, *groups[k]))])


def parse(sentence: str) -> tuple[Person, ...]:
    """The people of a sentence.

    Raises:
      UserError: malformed, with the number of the token.
    """
    reader, people = Reader("human_poses", sentence), []
    if reader.next == "none":
        reader.word(("none",))
        reader.end()
        return ()
    while reader.next or not people:
        if len(people) == MOST:
            reader.refuse(f"the end after {MOST} people")
        people.append(_read(reader))
    return tuple(people)


def _read(reader: Reader) -> Person:
    reader.word(("human",) if reader.at else ("human", "none"))
    box, pose, numbers = reader.box(), (), {}
    left = GROUPS
    while left:
        group = reader.word(left)
        left = tuple(g for g in left if g != group)
        if group == "pose":
            pose = tuple(reader.code() for _ in range(CODES))
        else:
            numbers[group] = tuple(
                SCALES[group].value(reader.bin(0)) for _ in range(ENTRIES[group])
            )
    return Person(
        box=box, pose=pose, rotation=numbers["global"], shape=numbers["shape"], camera=numbers["camera"]
    )  # fmt: skip


@functools.cache
def grammar() -> Grammar:
    """Of what `parse` takes: some 4,000 states, because each order of the groups has its own."""
    numbers = {"pose": [codes()] * CODES} | {k: [bins(0, BINS - 1)] * n for k, n in ENTRIES.items()}

    def in_any_order(left: tuple[str, ...]) -> Rule:
        if not left:
            return Seq(())
        ways = ((k, tuple(g for g in left if g != k)) for k in left)
        return Choice(tuple(Seq((word(k), *numbers[k], in_any_order(rest))) for k, rest in ways))

    person = Seq((word("human"), corners(), in_any_order(GROUPS)))
    return Grammar(Choice((word("none"), Seq((person, Many(person, MOST - 1))))))
