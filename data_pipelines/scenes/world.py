"""What a scene is: objects on a ground under a sky, a light, a camera that moves.

World axes: x and y on the ground, z up, metres. Time is counted in frames of a video; `frame` 0 is the picture.
Camera axes: x to the right, y down, z forward.
"""

import dataclasses
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


def middles(things: Sequence[Thing], frames: Sequence[float]) -> np.ndarray:
    """float64[frames, things, 3] of the world."""
    return np.array([[t.middle(f) for t in things] for f in frames])
