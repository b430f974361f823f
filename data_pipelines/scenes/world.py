"""What a scene is: objects on a ground under a sky, a light, a camera that moves. All drawn from (seed, index).

World axes: x and y on the ground, z up, metres. Time is counted in frames of a video; `frame` 0 is the picture.
Camera axes: x to the right, y down, z forward.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np

SHAPES = ("cube", "sphere", "cylinder")
SIZES = ("small", "large")
MATERIALS = ("rubber", "metal")
COLOURS = {
    "gray": (87, 87, 87), "red": (173, 35, 35), "blue": (42, 75, 215), "green": (29, 105, 20),
    "brown": (129, 74, 25), "purple": (129, 38, 192), "cyan": (41, 208, 208), "yellow": (255, 238, 51),
}  # fmt: skip
"""Names, values and radii are CLEVR's (Johnson et al. 2017), which MOVi-A (Greff et al. 2022) took over."""
RADIUS = {"small": 0.35, "large": 0.7}
GROUNDS = {"stone": (150, 150, 146), "sand": (196, 178, 138), "grass": (120, 150, 96), "slate": (104, 112, 128)}  # fmt: skip
SKIES = {"day": (150, 190, 235), "dusk": (235, 180, 150), "fog": (205, 208, 212)}
ATTRIBUTES = {"size": SIZES, "colour": tuple(COLOURS), "material": MATERIALS, "shape": SHAPES}

FRAMES = 8
MOST = 6
FOCAL = 1.4  # of the picture's side: 39 degrees from edge to edge
BASELINE = 0.4  # metres from the camera to that of the second view, to its right
ARENA = 2.0  # metres from the middle, where objects stand
GAP = 0.1  # metres between objects, at least, in all frames
SEEN = 6  # of 32 x 32 rays that meet an object, at least, in frame 0

FIRST = {"train": 0, "validation": 2**40, "test": 2 * 2**40, "unseen": 3 * 2**40}
"""Splits are ranges of indices, 2^40 each: none can reach into the next."""
WITHHELD = frozenset(
    {("cube", "green"), ("cube", "purple"), ("sphere", "gray"), ("sphere", "yellow"), ("cylinder", "red"), ("cylinder", "cyan")}
)  # fmt: skip
"""Shapes in colours that no object of train, validation and test has; one object of each scene of `unseen` has."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """An object that stands on the ground.

    Attributes:
      x, y: of its middle, in frame 0. vx, vy: metres per frame; it slides.
      yaw: radians about z, 0 .. pi / 2; says something of cubes alone.
    """

    shape: str
    size: str
    material: str
    colour: str
    x: float
    y: float
    yaw: float = 0.0
    vx: float = 0.0
    vy: float = 0.0

    @property
    def radius(self) -> float:
        """Of the circle that it stands in, metres."""
        return RADIUS[self.size]

    @property
    def half(self) -> float:
        """Half its height, metres: an edge of a cube is the radius times sqrt 2, as in CLEVR."""
        return self.radius / np.sqrt(2) if self.shape == "cube" else self.radius

    @property
    def name(self) -> str:
        """ "large red metal cube": tells it from all others of its scene."""
        return f"{self.size} {self.colour} {self.material} {self.shape}"

    def middle(self, frame: float = 0) -> np.ndarray:
        """float64[3], metres."""
        return np.array([self.x + frame * self.vx, self.y + frame * self.vy, self.half])


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """Where a camera is: a point X of the world is rotation @ (X - origin) to it.

    Attributes:
      origin: float64[3]. rotation: float64[3, 3], its rows are the camera's axes.
    """

    origin: np.ndarray
    rotation: np.ndarray

    def seen(self, points: np.ndarray) -> np.ndarray:
        """Points float[..., 3] of the world in the camera's axes."""
        return (points - self.origin) @ self.rotation.T

    def projected(self, points: np.ndarray, side: int) -> np.ndarray:
        """Points float[..., 3] of the world -> float[..., 2]: x, y in pixels; a pixel's middle is at .5."""
        seen = self.seen(points)
        return seen[..., :2] / seen[..., 2:] * (FOCAL * side) + side / 2


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Path:
    """A camera on its way around the middle, which it looks at; angles in radians, metres, per frame.

    Attributes:
      azimuth, elevation, distance: where it is in frame 0. turn, rise, near: how these change.
      aim: height of the point that it looks at.
    """

    azimuth: float
    elevation: float
    distance: float
    turn: float = 0.0
    rise: float = 0.0
    near: float = 0.0
    aim: float = 0.4

    def view(self, frame: float = 0) -> View:
        """The camera at a frame."""
        azimuth, elevation = self.azimuth + frame * self.turn, self.elevation + frame * self.rise
        back, c, s = direction(azimuth, elevation), np.cos(azimuth), np.sin(azimuth)
        down = [np.sin(elevation) * c, np.sin(elevation) * s, -np.cos(elevation)]
        origin = np.array([0, 0, self.aim]) + (self.distance - frame * self.near) * back
        return View(origin, np.array([[-s, c, 0.0], down, -back]))

    def second(self) -> View:
        """The camera of the second view: frame 0's, moved to its right."""
        view = self.view()
        return View(view.origin + BASELINE * view.rotation[0], view.rotation)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """All that is true of a record.

    Attributes:
      things: from left to right in the picture, by their middles; no two have the same attributes.
      light: azimuth and elevation in radians of where the light comes from.
    """

    things: tuple[Thing, ...]
    path: Path
    light: tuple[float, float]
    ground: str
    sky: str

    def sorted(self) -> "Scene":
        """The same with things from left to right."""
        view = self.path.view()
        across = lambda t: view.projected(t.middle(), 1)[0]
        return dataclasses.replace(self, things=tuple(sorted(self.things, key=across)))

    def places(self, side: int) -> np.ndarray:
        """float64[things, 3]: x and y of the middles in pixels, and their depths in metres, in frame 0."""
        view, middles = self.path.view(), np.stack([t.middle() for t in self.things])
        return np.column_stack([view.projected(middles, side), view.seen(middles)[:, 2]])


def direction(azimuth: float, elevation: float) -> np.ndarray:
    """The unit vector float64[3] that points there."""
    flat = np.cos(elevation)
    return np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])


@functools.cache
def kinds(withheld: bool) -> tuple[tuple[str, str, str, str], ...]:
    """Size, colour, material and shape of the objects that are withheld, or of those that are not."""
    every = itertools.product(*ATTRIBUTES.values())
    return tuple(k for k in every if ((k[3], k[1]) in WITHHELD) == withheld)


def split_of(index: int) -> str:
    """The split that a record belongs to."""
    return list(FIRST)[index >> 40]


def draw(seed: int, index: int, objects: tuple[int, int]) -> Scene:
    """The scene of a record, a pure function of its arguments.

    Args:
      index: see `FIRST`. objects: how many, at least and at most.
    """
    from data_pipelines.scenes.render import all_seen  # it reads this file

    rng = np.random.default_rng([seed, index])
    while True:
        scene = _proposed(rng, objects, split_of(index) == "unseen")
        if scene is not None and all_seen(scene):
            return scene


def _proposed(rng: np.random.Generator, objects: tuple[int, int], unseen: bool) -> Scene | None:
    """A scene, unless its objects would touch."""
    count = int(rng.integers(objects[0], objects[1] + 1))
    usual, rare = kinds(False), kinds(True)
    picked = [usual[i] for i in rng.permutation(len(usual))[:count]]
    if unseen:
        picked[0] = rare[rng.integers(len(rare))]
    things = []
    for size, colour, material, shape in picked:
        away, where, towards = ARENA * np.sqrt(rng.random()), *rng.uniform(0, 2 * np.pi, 2)
        speed = rng.uniform(0.03, 0.12) * (rng.random() < 0.5)
        thing = Thing(
            size=size, colour=colour, material=material, shape=shape,
            x=away * np.cos(where), y=away * np.sin(where), yaw=rng.uniform(0, np.pi / 2),
            vx=speed * np.cos(towards), vy=speed * np.sin(towards),
        )  # fmt: skip
        if any(_touch(thing, other) for other in things):
            return None
        things.append(thing)
    path = Path(
        azimuth=rng.uniform(0, 2 * np.pi), elevation=rng.uniform(0.2, 0.55),
        distance=rng.uniform(6.0, 8.0), turn=rng.uniform(0.01, 0.04) * rng.choice([-1, 1]),
        rise=rng.uniform(-0.006, 0.006), near=rng.uniform(-0.08, 0.08),
    )  # fmt: skip
    scene = Scene(
        things=tuple(things),
        path=path,
        light=(rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.2)),
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


def middles(things: Sequence[Thing], frames: Sequence[float]) -> np.ndarray:
    """float64[frames, things, 3] of the world."""
    return np.array([[t.middle(f) for t in things] for f in frames])
