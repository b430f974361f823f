"""Records: every modality of a scene, in its units. A modality is made when it is asked for."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from data_pipelines.scenes import facts, render, sound, words
from data_pipelines.scenes.drawing import draw
from data_pipelines.scenes.world import FRAMES, MOST, Scene, View, middles
from mm.errors import UserError, nearest

POINTS = 512
SECOND = FRAMES  # place of the second view among those that are rendered


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """One modality.

    Attributes:
      shape: of its array, S = side of the pictures; None = of varying length, or no array.
      dtype: of its array, or what it is. unit: what its values are.
      views: which rendered views it needs: frames, and SECOND.
    """

    make: Callable[["Record"], Any]
    shape: tuple[int | str, ...] | None
    dtype: str
    unit: str
    views: Sequence[int] = (0,)


class Record:
    """One record.

    Attributes:
      scene: all that is true of it. side: of its pictures, in pixels.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        side: int = 64,
        key: tuple[int, ...] = (0, 0),
        names: Sequence[str] | None = None,
    ):
        """
        Args:
          key: seeds what is drawn beside the scene: the caption's words, the cloud's pixels.
          names: modalities that will be asked for; others may be asked for too, but cost a rendering of their own.
        """
        self.scene, self.side, self.key = scene, side, key
        self._made: dict[str, Any] = {}
        self._rendered: dict[int, tuple[render.Hits, render.Light, int]] = {}
        self._names = tuple(MODALITIES) if names is None else tuple(names)

    def __getitem__(self, name: str) -> Any:
        """The value of a modality; see `MODALITIES`, and docs/scenes.md for units."""
        if name not in MODALITIES:
            raise UserError(f"scenes: no modality {name!r}{nearest(name, MODALITIES)}")
        if name not in self._made:
            self._made[name] = MODALITIES[name].make(self)
        return self._made[name]

    def values(self) -> dict[str, Any]:
        """All modalities that were named."""
        return {name: self[name] for name in self._names}

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers of a modality alone, so that none depends on which others are made."""
        return np.random.default_rng([*self.key, 1 + list(MODALITIES).index(name)])

    def view(self, at: int) -> View:
        """The camera of a frame, or of the second view."""
        return self.scene.path.second() if at == SECOND else self.scene.path.view(at)

    def _render(self, wanted: Sequence[int]) -> None:
        left = [v for v in wanted if v not in self._rendered]
        if left:
            things = self.scene.things
            centres = middles(things, [0 if v == SECOND else v for v in left])
            hits = render.trace(things, [self.view(v) for v in left], centres, self.side)
            light = render.lit(self.scene, hits, centres)
            self._rendered |= {v: (hits, light, i) for i, v in enumerate(left)}

    def views(self, wanted: Sequence[int]) -> list[tuple[render.Hits, render.Light, int]]:
        """What the rays of views met, how it looks, and the view's place in both."""
        if any(v not in self._rendered for v in wanted):
            named = {v for n in self._names for v in MODALITIES[n].views}
            self._render(sorted(named | set(wanted)))
        return [self._rendered[v] for v in wanted]

    def pictures(self, wanted: Sequence[int]) -> np.ndarray:
        """uint8[views, S, S, 3]."""
        found = [light.rgb[i] for _, light, i in self.views(wanted)]
        return np.stack(found).reshape(-1, *self.square, 3)

    @property
    def square(self) -> tuple[int, int]:
        return (self.side, self.side)

    def map(self, name: str) -> np.ndarray:
        """A field of the rays of frame 0 as float32, int8, uint8 or bool [S, S, ...]; see `Hits` and `Light`."""
        hits, light, i = self.views([0])[0]
        found = getattr(hits if hasattr(hits, name) else light, name)
        if name in ("normal", "point", "ray"):
            return np.moveaxis(found[:, i], 0, -1).reshape(*self.square, 3)
        return found[i].reshape(*self.square, *found.shape[2:])

    @property
    def covered(self) -> np.ndarray:
        """int64[things]: pixels that each thing would have if it were alone."""
        return self.views([0])[0][
            0
        ].covered  # `trace` counts in its first view, which frame 0 always is


def record(
    seed: int,
    index: int,
    *,
    side: int = 64,
    objects: tuple[int, int] = (2, 5),
    names: Sequence[str] | None = None,
) -> Record:
    """Record `index`: a pure function of (seed, index), whatever else was made before.

    Args:
      index: 0 .. 2^40 - 1 are training records; see `world.FIRST` for the other splits.
      side: pixels; the scene does not depend on it. objects: how many, at least and at most.
      names: the modalities that will be asked for; None = all.
    """
    scene = draw(seed, index, objects)
    return Record(scene, side=side, key=(seed, index), names=names)


def normals(r: Record) -> np.ndarray:
    """Unit normals in camera axes: those that face the camera have z < 0; 0 in the sky."""
    return r.map("normal") @ r.view(0).rotation.T.astype(np.float32)


def semantic(r: Record) -> np.ndarray:
    shapes = [render.CLASSES.index(t.shape) for t in r.scene.things]
    table = np.array([render.GROUND, *shapes], np.uint8)
    return np.where(r.map("depth") == render.FAR, np.uint8(render.SKY), table[r.map("thing")])


def masks(r: Record) -> np.ndarray:
    return r["instance"] == np.arange(1, MOST + 1, dtype=np.uint8)[:, None, None]


def edges(r: Record) -> np.ndarray:
    """255 where the pixel to the right or below shows another surface: of another thing, or another face of it."""
    surface = r.map("thing").astype(np.int16) * 8 + r.map("face")
    surface[r.map("depth") == render.FAR] = -1
    found = np.zeros(r.square, np.uint8)
    found[:, :-1] |= surface[:, :-1] != surface[:, 1:]
    found[:-1] |= surface[:-1] != surface[1:]
    return found * np.uint8(255)


def flow(r: Record) -> np.ndarray:
    """Pixels (x, y) that each point of frame 0 moves by until frame 1, whether or not it is hidden there.

    The sky is endlessly far: it moves as the camera turns.
    """
    moves = np.array([(0, 0, 0), *((t.vx, t.vy, 0) for t in r.scene.things)])
    later, sky = r.view(1), r.map("depth") == render.FAR
    seen = later.seen(r.map("point") + moves[r.map("thing")])
    seen[sky] = r.map("ray")[sky] @ later.rotation.T
    at = seen[..., :2] / seen[..., 2:] * (render.FOCAL * r.side)
    here = render.pixel_rays(r.side)[:2].T.reshape(*r.square, 2) * np.float64(render.FOCAL * r.side)
    return (at - here).astype(np.float32)


def points(r: Record) -> np.ndarray:
    """512 pixels that are not sky: where they are in camera axes (metres), and their colour (0 .. 1)."""
    solid = np.flatnonzero(r.map("depth").ravel() < render.FAR)
    chosen = r.rng("points").choice(solid, POINTS, replace=len(solid) < POINTS)
    at = render.pixel_rays(r.side)[:, chosen] * r.map("depth").ravel()[chosen]
    colour = r["rgb"].reshape(-1, 3)[chosen] / np.float32(255)
    return np.concatenate([at.T, colour], 1).astype(np.float32)


def caption(r: Record) -> str:
    rng = r.rng("caption")
    return words.write(words.claims_of(r.scene, rng), rng)


_MAP, _VIDEO = ("S", "S"), tuple(range(FRAMES))
MODALITIES: dict[str, Kind] = {
    "rgb": Kind(lambda r: r.pictures([0])[0], ("S", "S", 3), "uint8", "0 .. 255"),
    "depth": Kind(lambda r: r.map("depth"), _MAP, "float32", f"metres forward; sky {render.FAR:g}"),
    "normals": Kind(normals, ("S", "S", 3), "float32", "unit vectors, camera axes; sky 0"),
    "semantic": Kind(semantic, _MAP, "uint8", ", ".join(f"{i} {c}" for i, c in enumerate(render.CLASSES))),
    "instance": Kind(lambda r: r.map("thing").astype(np.uint8), _MAP, "uint8", "0, or the object from 1"),
    "masks": Kind(masks, (MOST, "S", "S"), "bool", "one per object; the rest empty"),
    "edges": Kind(edges, _MAP, "uint8", "255 between surfaces, else 0"),
    "albedo": Kind(lambda r: r.map("albedo"), ("S", "S", 3), "uint8", "0 .. 255"),
    "shading": Kind(lambda r: r.map("shading"), _MAP, "float32", "0 .. 1, of the albedo"),
    "specular": Kind(lambda r: r.map("specular"), _MAP, "float32", "0 .. 1, of white"),
    "flow": Kind(flow, ("S", "S", 2), "float32", "pixels to the right and down, frame 0 to 1"),
    "view": Kind(lambda r: r.pictures([SECOND])[0], ("S", "S", 3), "uint8", "0 .. 255", (SECOND,)),
    "video": Kind(lambda r: r.pictures(_VIDEO), (FRAMES, "S", "S", 3), "uint8", "0 .. 255", _VIDEO),
    "boxes": Kind(facts.boxes, None, "list", "pixels, the far edges outside"),
    "poses": Kind(facts.poses, (MOST, 6), "float32", "metres in camera axes, radians"),
    "caption": Kind(caption, None, "text", "a sentence of `words`", ()),
    "tree": Kind(lambda r: words.write_tree(words.tree_of(r.scene)), None, "text", "percents, decimetres", ()),
    "metadata": Kind(facts.metadata, None, "dict", "see `facts.metadata`"),
    "palette": Kind(facts.palette, None, "list", "0 .. 255, most pixels first"),
    "audio": Kind(lambda r: sound.audio(r.scene), (sound.LENGTH, 2), "float32", "8 kHz, left and right, -1 .. 1", ()),
    "trajectory": Kind(facts.trajectory, (FRAMES, 6), "float32", "metres in axes of frame 0, radians", ()),
    "points": Kind(points, (POINTS, 6), "float32", "metres in camera axes; red, green, blue 0 .. 1"),
}  # fmt: skip
"""All modalities, in the order of docs/scenes.md."""


def shape_of(name: str, side: int) -> tuple[int, ...] | None:
    """The shape of a modality's array for pictures of that side; None = no array."""
    shape = MODALITIES[name].shape
    return None if shape is None else tuple(side if n == "S" else int(n) for n in shape)
