"""Which scene a record is: drawn from (seed, index), until its objects are apart and all of them show.

Training, validation and test are ranges of indices. In `unseen` one object of each scene has a shape in a colour that no
object of the other splits has.
"""

import functools
import itertools

import numpy as np

from data_pipelines.scenes import render
from data_pipelines.scenes.world import (
    ATTRIBUTES,
    FRAMES,
    GROUNDS,
    SKIES,
    Path,
    Scene,
    Thing,
    middles,
)
from mm.errors import UserError

ARENA = 2.0  # metres from the middle, where objects stand
GAP = 0.1  # metres between objects, at least, in all frames
SEEN = 6  # of 32 x 32 rays that meet an object, at least, in frame 0
TRIES = 30  # places for an object, before all are placed anew
ELEVATION, LIGHT = (0.2, 0.55), (0.6, 1.2)  # radians
DISTANCE = (
    5.0,
    7.0,
)  # metres; far less than 1 to 2, so that a large object far away is no small one nearby

FIRST = {"train": 0, "validation": 2**40, "test": 2 * 2**40, "unseen": 3 * 2**40}
"""Splits are ranges of indices, 2^40 each: none can reach into the next."""
WITHHELD = frozenset(
    {("cube", "green"), ("cube", "purple"), ("sphere", "gray"), ("sphere", "yellow"), ("cylinder", "red"), ("cylinder", "cyan")}
)  # fmt: skip
"""Shapes in colours that no object of train, validation and test has; one object of each scene of `unseen` has."""


@functools.cache
def kinds(withheld: bool) -> tuple[tuple[str, str, str, str], ...]:
    """Size, colour, material and shape of the objects that are withheld, or of those that are not."""
    every = itertools.product(*ATTRIBUTES.values())
    return tuple(k for k in every if ((k[3], k[1]) in WITHHELD) == withheld)


def split_of(index: int) -> str:
    """The split that a record belongs to.

    Raises:
      UserError: no such record.
    """
    if not 0 <= index < len(FIRST) << 40:
        raise UserError(
            f"scenes: no record {index}; the splits begin at {FIRST}, 2^40 records each"
        )
    return list(FIRST)[index >> 40]


@functools.lru_cache(maxsize=2**14)  # a column is read after the other: the same scenes for each
def draw(seed: int, index: int, objects: tuple[int, int]) -> Scene:
    """The scene of a record, a pure function of its arguments.

    What the objects are is drawn once: only places, light and camera are drawn anew until all of them show, so that
    their number and attributes are evenly distributed.

    Args:
      index: see `FIRST`. objects: how many, at least and at most.
    """
    rng = np.random.default_rng([seed, index])
    count = int(rng.integers(objects[0], objects[1] + 1))
    usual, rare = kinds(False), kinds(True)
    picked = [usual[i] for i in rng.permutation(len(usual))[:count]]
    if split_of(index) == "unseen":
        picked[0] = rare[rng.integers(len(rare))]
    while True:
        things = _placed(rng, picked)
        if things is not None and all_seen(scene := _around(rng, things)):
            return scene


def _placed(
    rng: np.random.Generator, picked: list[tuple[str, str, str, str]]
) -> list[Thing] | None:
    """Things of these kinds that do not touch; None where a place for one was not found."""
    things: list[Thing] = []
    for size, colour, material, shape in picked:
        for _ in range(TRIES):
            away, where, towards = ARENA * np.sqrt(rng.random()), *rng.uniform(0, 2 * np.pi, 2)
            speed = rng.uniform(0.03, 0.12) * (rng.random() < 0.5)
            thing = Thing(
                size=size, colour=colour, material=material, shape=shape,
                x=away * np.cos(where), y=away * np.sin(where), yaw=rng.uniform(0, np.pi / 2),
                vx=speed * np.cos(towards), vy=speed * np.sin(towards),
            )  # fmt: skip
            if not any(_touch(thing, other) for other in things):
                things.append(thing)
                break
        else:
            return None
    return things


def _around(rng: np.random.Generator, things: list[Thing]) -> Scene:
    """A scene of these things."""
    path = Path(
        azimuth=rng.uniform(0, 2 * np.pi), elevation=rng.uniform(*ELEVATION),
        distance=rng.uniform(*DISTANCE), turn=rng.uniform(0.01, 0.04) * rng.choice([-1, 1]),
        rise=rng.uniform(-0.006, 0.006), near=rng.uniform(-0.08, 0.08),
    )  # fmt: skip
    scene = Scene(
        things=tuple(things),
        path=path,
        light=(rng.uniform(0, 2 * np.pi), rng.uniform(*LIGHT)),
        ground=list(GROUNDS)[rng.integers(len(GROUNDS))],
        sky=list(SKIES)[rng.integers(len(SKIES))],
    )
    return scene.sorted()


def _touch(a: Thing, b: Thing) -> bool:
    """Whether two things come too near to each other between the first and the last frame."""
    apart, moves = np.array([a.x - b.x, a.y - b.y]), np.array([a.vx - b.vx, a.vy - b.vy])
    speed = moves @ moves
    nearest = np.clip(-(apart @ moves) / speed, 0, FRAMES - 1) if speed else 0.0
    return bool(np.hypot(*(apart + nearest * moves)) < a.radius + b.radius + GAP)


def all_seen(scene: Scene) -> bool:
    """Whether the middle of every thing is within the picture, and enough of it shows (`SEEN`).

    By 32 x 32 rays whatever the side of the pictures, so that scenes do not depend on it.
    """
    if np.abs(scene.places(1)[:, :2] - 0.5).max() > 0.5:
        return False
    hits = render.trace(scene.things, [scene.path.view()], middles(scene.things, [0]), 32)
    return bool((np.bincount(hits.thing[0], minlength=len(scene.things) + 1)[1:] >= SEEN).all())
