"""Which facts of a scene a modality determines: ceilings for whatever is predicted from it.

Two measurements bound it, both of exact contents, over many records:

- **Changes that show.** One fact of a record's scene is changed (an object gets another colour; the light comes from
  elsewhere), all others stay, the modality is made anew with the same random numbers, and the share of changes after
  which it differs in any bit is counted. A change that does not show cannot be read from it: an upper bound. Facts are
  drawn independently (but for objects that would touch, or hide each other), so a source in which no change ever
  shows says nothing of the fact: what is best then is to guess what is most frequent.
- **Read exactly.** For sources that are summaries, a reader says the fact, and the share of records in which it is right
  is counted: a lower bound. A summary can change with every fact and tell none (the mean brightness does), so only
  what a reader finds in every record counts as known. Pictures and maps show each object at a place of its own, and
  no reader is needed to bound them from below: there `known` means that everything else given, every value of the
  fact makes another picture.

`known`: all changes show (and, of summaries, all are read). `open`: none shows. `partly`: the rest.
"""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from data_pipelines.scenes import facts, words
from data_pipelines.scenes.drawing import FIRST, draw
from data_pipelines.scenes.record import MODALITIES, Record
from data_pipelines.scenes.sound import heard
from data_pipelines.scenes.source import as_row
from data_pipelines.scenes.world import ATTRIBUTES, FOCAL, GROUNDS, SKIES, Scene
from mm import progress

Changed = Scene | None
"""None where the scene has nothing to change: no cube that could be turned."""


def _with(scene: Scene, k: int, **new: Any) -> Scene:
    things = list(scene.things)
    things[k] = dataclasses.replace(things[k], **new)
    return dataclasses.replace(scene, things=tuple(things)).sorted()


def _count(scene: Scene, rng: np.random.Generator) -> Changed:
    if len(scene.things) == 1:
        return None
    k = int(rng.integers(len(scene.things)))
    return dataclasses.replace(scene, things=scene.things[:k] + scene.things[k + 1 :])


def _attribute(name: str, scene: Scene, rng: np.random.Generator) -> Changed:
    k = int(rng.integers(len(scene.things)))
    others = [v for v in ATTRIBUTES[name] if v != getattr(scene.things[k], name)]
    return _with(scene, k, **{name: others[int(rng.integers(len(others)))]})


def _moved(axis: int, scene: Scene, rng: np.random.Generator) -> Changed:
    """An object 0.1 to 0.3 m to the left or right (axis 0), or nearer or farther (2)."""
    k = int(rng.integers(len(scene.things)))
    along = scene.path.view().rotation[axis][:2]
    way = along / np.hypot(*along) * rng.uniform(0.1, 0.3) * rng.choice([-1, 1])
    thing = scene.things[k]
    return _with(scene, k, x=thing.x + way[0], y=thing.y + way[1])


def _yaw(scene: Scene, rng: np.random.Generator) -> Changed:
    cubes = [k for k, t in enumerate(scene.things) if t.shape == "cube"]
    if not cubes:
        return None
    k = cubes[int(rng.integers(len(cubes)))]
    return _with(scene, k, yaw=(scene.things[k].yaw + rng.uniform(0.3, 1.2)) % (np.pi / 2))


def _motion(scene: Scene, rng: np.random.Generator) -> Changed:
    k = int(rng.integers(len(scene.things)))
    turn = rng.uniform(0, 2 * np.pi)
    x, y = 0.08 * np.cos(turn), 0.08 * np.sin(turn)
    return _with(scene, k, vx=scene.things[k].vx + x, vy=scene.things[k].vy + y)


def _camera(scene: Scene, rng: np.random.Generator) -> Changed:
    path = dataclasses.replace(scene.path, turn=-scene.path.turn, near=-scene.path.near)
    return dataclasses.replace(scene, path=path)


def _light(scene: Scene, rng: np.random.Generator) -> Changed:
    azimuth = scene.light[0] + rng.uniform(0.3, 1.5) * rng.choice([-1, 1])
    return dataclasses.replace(scene, light=(azimuth, scene.light[1]))


def _backdrop(name: str, values: Iterable[str], scene: Scene, rng: np.random.Generator) -> Changed:
    others = [v for v in values if v != getattr(scene, name)]
    return dataclasses.replace(scene, **{name: others[int(rng.integers(len(others)))]})


CHANGES: dict[str, Callable[[Scene, np.random.Generator], Changed]] = {
    "count": _count,
    **{name: functools.partial(_attribute, name) for name in ("shape", "size", "material", "colour")},
    "place": functools.partial(_moved, 0),
    "distance": functools.partial(_moved, 2),
    "yaw": _yaw,
    "motion": _motion,
    "camera": _camera,
    "light": _light,
    "ground": functools.partial(_backdrop, "ground", GROUNDS),
    "sky": functools.partial(_backdrop, "sky", SKIES),
}  # fmt: skip
"""Facts, and how each is changed while all others stay: place is left to right, camera is how it moves."""


def facts_of(scene: Scene) -> dict[str, Any]:
    """The facts of a scene as readers say them, rounded; of objects from left to right. No reader says how objects move."""
    places, path = scene.places(1), scene.path
    found = {name: tuple(getattr(t, name) for t in scene.things) for name in ATTRIBUTES}
    turns = [(t.yaw - path.azimuth) % (np.pi / 2) for t in scene.things]
    return found | {
        "count": len(scene.things),
        "place": _rounded(100 * places[:, 0]),
        "distance": _rounded(10 * places[:, 2]),
        "yaw": tuple(_rounded([100 * a])[0] if t.shape == "cube" else None for a, t in zip(turns, scene.things, strict=True)),
        "camera": _rounded(1000 * facts.trajectory(Record(scene))),
        "light": _rounded([10 * math.degrees(scene.light[0] - path.azimuth) % 3600, 10 * math.degrees(scene.light[1])]),
        "ground": scene.ground,
        "sky": scene.sky,
    }  # fmt: skip


def _rounded(values: Any) -> tuple[int, ...]:
    return tuple(np.round(np.ravel(values)).astype(int).tolist())


def _read_caption(text: str) -> dict[str, Any]:
    claims = words.parse(text)
    if claims.count != len(claims.things):
        return {"count": claims.count}
    said = dict(zip(ATTRIBUTES, zip(*claims.things, strict=True), strict=True))
    return {"count": claims.count, **said}  # those that are named are from left to right


def _read_tree(text: str) -> dict[str, Any]:
    _, sky, (_, ground, *things) = words.parse_tree(text)
    shape, size, colour, material, at, depth = zip(*things, strict=True)
    return {
        "count": len(things), "shape": shape, "size": size, "colour": colour, "material": material,
        "place": tuple(int(p[1]) for p in at), "distance": tuple(int(d[1]) for d in depth),
        "ground": ground, "sky": sky[1],
    }  # fmt: skip


def _read_boxes(boxes: list[dict[str, Any]]) -> dict[str, Any]:
    labels = [b["label"].split() for b in boxes]
    return {"count": len(boxes), **dict(zip(ATTRIBUTES, zip(*labels, strict=True), strict=True))}


def _read_poses(poses: np.ndarray) -> dict[str, Any]:
    x, _, depth, yaw, radius, half = poses[poses[:, 4] > 0].astype(np.float64).T
    return {
        "count": len(x),
        "size": tuple("large" if r > 0.5 else "small" for r in radius),
        "place": _rounded(100 * (x / depth * FOCAL + 0.5)),
        "distance": _rounded(10 * depth),
        "yaw": tuple(
            _rounded([100 * a])[0] if flat else None
            for a, flat in zip(yaw, half < 0.9 * radius, strict=True)
        ),
    }


def _read_metadata(told: dict[str, Any]) -> dict[str, Any]:
    light = _rounded([10 * told["light_azimuth"], 10 * told["light_elevation"]])
    return {"count": told["objects"], "ground": told["ground"], "sky": told["sky"], "light": light}


def _read_palette(colours: list[list[int]]) -> dict[str, Any]:
    shown = {tuple(c) for c in colours}
    grounds = [name for name, c in GROUNDS.items() if c in shown]
    skies = [name for name, c in SKIES.items() if c in shown]
    return {"ground": (grounds or [None])[0], "sky": (skies or [None])[0]}


def _read_audio(samples: np.ndarray) -> dict[str, Any]:
    found = sorted(heard(samples), key=lambda s: s["across"])
    inside = all(0.001 < s["across"] < 0.999 for s in found)
    return {
        "count": len(found),
        **{n: tuple(s[n] for s in found) for n in ("shape", "size", "material")},
        "place": _rounded([100 * s["across"] for s in found]) if inside else None,
        "distance": _rounded([10 * s["depth"] for s in found]),
    }


READERS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "boxes": _read_boxes, "poses": _read_poses, "caption": _read_caption, "tree": _read_tree,
    "metadata": _read_metadata, "palette": _read_palette, "audio": _read_audio,
    "trajectory": lambda t: {"camera": _rounded(1000 * t)},
}  # fmt: skip
"""Sources that are summaries, and how they are read; the others are pictures, maps and clouds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """What a source says of a fact.

    Attributes:
      shows: share of changes of the fact that the source shows. read: share of records in which its reader is right;
        None of pictures and maps. kind: known, partly or open.
    """

    shows: float
    read: float | None
    kind: str


def table(records: int = 200, seed: int = 0, side: int = 64) -> dict[str, dict[str, Cell]]:
    """The determinability table: {source: {fact: Cell}}, of the first validation records."""
    shown = {source: {fact: [] for fact in CHANGES} for source in MODALITIES}
    read = {source: {fact: [] for fact in CHANGES} for source in READERS}
    for i in progress.track(range(records), "records changed and read"):
        index = FIRST["validation"] + i
        scene, rng = draw(seed, index, (2, 5)), np.random.default_rng([seed, i])
        base, true = Record(scene, side=side, key=(seed, index)), facts_of(scene)
        rows = {name: _row(base, name) for name in MODALITIES}
        for fact, change in CHANGES.items():
            if (changed := change(scene, rng)) is not None:
                other = Record(changed, side=side, key=(seed, index))
                for name in MODALITIES:
                    shown[name][fact].append(_row(other, name) != rows[name])
        for source, reader in READERS.items():
            said = reader(base[source])
            for fact in CHANGES:
                read[source][fact].append(said.get(fact) is not None and said[fact] == true[fact])
    return {
        source: {
            fact: _cell(_share(shown[source][fact]), _share(read[source][fact]) if source in read else None)
            for fact in CHANGES
        }
        for source in MODALITIES
    }  # fmt: skip


def _row(record: Record, name: str) -> bytes | str:
    row = as_row(name, record[name])
    return row.tobytes() if isinstance(row, np.ndarray) else row


def _share(of: list[bool]) -> float:
    return sum(of) / max(len(of), 1)


def _cell(shows: float, read: float | None) -> Cell:
    whole = shows == 1 and read in (None, 1)
    return Cell(float(shows), read, "known" if whole else "partly" if shows else "open")


def guesses(records: int = 2000, seed: int = 0) -> dict[str, float]:
    """How often the most frequent value of a fact is right, where it has names or counts: what `open` leaves to be had.

    Of an object's attributes: of all objects; of colours, with the shape known, as some shapes never have some colours.
    """
    found: dict[str, Counter] = {f: Counter() for f in (*ATTRIBUTES, "count", "ground", "sky")}
    for i in range(records):
        true = facts_of(draw(seed, FIRST["validation"] + i, (2, 5)))
        true["colour"] = tuple(zip(true["shape"], true["colour"], strict=True))
        for fact, counter in found.items():
            counter.update(true[fact] if isinstance(true[fact], tuple) else [true[fact]])
    best = {f: max(c.values()) / c.total() for f, c in found.items()}
    most = (
        max(n for (s, _), n in found["colour"].items() if s == shape) for shape in found["shape"]
    )
    return best | {"colour": sum(most) / found["colour"].total()}


def markdown(cells: dict[str, dict[str, Cell]], best: dict[str, float]) -> str:
    """The table as docs/scenes.md shows it: **known**, open as a dash, and of `partly` the share of changes that show
    and, of summaries, of records that are read."""
    lines = ["| | " + " | ".join(CHANGES) + " |", "|---" * (len(CHANGES) + 1) + "|"]
    for source, row in cells.items():
        lines.append(f"| {source} | " + " | ".join(_said(c) for c in row.values()) + " |")
    last = [f"{100 * best[f]:.0f}%" if f in best else "" for f in CHANGES]
    return "\n".join([*lines, "| best guess | " + " | ".join(last) + " |"])


def _said(cell: Cell) -> str:
    if cell.kind != "partly":
        return {"known": "**known**", "open": "-"}[cell.kind]
    read = "" if cell.read is None else f", read {100 * cell.read:.3g}%"
    return f"{100 * cell.shows:.3g}%{read}"
