"""Rays against spheres, boxes and upright cylinders, all views of a record at once.

One ray goes through the middle of each pixel, and every modality is what that ray met: there is no blending at
borders, so that a pixel's colour, depth, normal and instance are of one and the same point.

Rays are not unit vectors: they go 1 m forward, so that a ray's length is the depth. Only rays that come near an
object (its ball) are intersected with it: this is where the time goes otherwise.
"""

import dataclasses
import functools

import numpy as np

from data_pipelines.scenes.world import (
    COLOURS,
    FOCAL,
    GROUNDS,
    SHAPES,
    SKIES,
    Scene,
    Thing,
    View,
    direction,
)

FAR = 20.0  # metres: what is deeper is sky
NEAR = 0.05
TILE = 1.0  # metres, an edge of the ground's squares
DARK = 0.86  # of the ground's colour: every other square
SKY, GROUND = 0, 1  # semantic classes; shapes follow
CLASSES = ("sky", "ground", *SHAPES)
AMBIENT, DIFFUSE = 0.45, 0.55  # add up to 1, so that no picture is clipped by its shading
METAL_BODY, GLANCE, MIRROR = 0.7, 0.5, 0.28
BALL = {"cube": np.sqrt(1.5), "sphere": 1.0, "cylinder": np.sqrt(2.0)}  # radius of the ball around


@dataclasses.dataclass(frozen=True, slots=True)
class Hits:
    """What the rays of V views of P pixels met.

    Attributes:
      depth: float32[V, P], metres forward; FAR in the sky.
      thing: int8[V, P], number of the object from 1; 0 = none. face: int8[V, P], see `face_of`.
      normal: float32[3, V, P], of the world, to the outside; 0 in the sky.
      point: float32[3, V, P], of the world. ray: float32[3, V, P].
      covered: int64[things], rays of view 0 that would meet each thing if it were alone.
    """

    depth: np.ndarray
    thing: np.ndarray
    face: np.ndarray
    normal: np.ndarray
    point: np.ndarray
    ray: np.ndarray
    covered: np.ndarray


@functools.cache
def pixel_rays(side: int) -> np.ndarray:
    """float32[3, side * side]: through the pixels' middles, in camera axes, row by row."""
    at = (np.arange(side) + 0.5 - side / 2) / (FOCAL * side)
    y, x = np.meshgrid(at, at, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(side * side)]).astype(np.float32)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of vectors along the first axis, the same to the last bit whatever else is in the arrays: BLAS is not."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def crossed(thing: Thing, start: np.ndarray, ray: np.ndarray):
    """Where rays enter and leave an object. float32 in, float32 out.

    Args:
      start: [3, m] from the object's middle. ray: [3, m] or [3, 1], of any length.

    Returns:
      enter, leave: [m], in lengths of the ray; a ray misses where enter >= leave.
      flat: [m], which axis of the object (0, 1, 2) its surface is square to where it is entered, -1 where it is round.
    """
    if thing.shape == "sphere":
        length = dot(ray, ray)
        nearest = -dot(start, ray) / length
        apart = start + nearest * ray  # its square is exact where b^2 - 4 a c cancels
        inside = thing.radius**2 - dot(apart, apart)
        half = np.sqrt(np.maximum(inside, 0) / length)
        return nearest - half, nearest + half, np.full(np.shape(nearest), -1, np.int8)
    if thing.shape == "cube":
        start, ray = turned(start, -thing.yaw), turned(ray, -thing.yaw)
        low, high = _slab(start, ray, thing.half)
        flat = low.argmax(0).astype(np.int8)
        return low.max(0), high.min(0), flat
    low, high = _slab(start[2], ray[2], thing.half)
    across = np.maximum(ray[0] ** 2 + ray[1] ** 2, np.float32(1e-12))
    nearest = -(start[0] * ray[0] + start[1] * ray[1]) / across
    x, y = start[0] + nearest * ray[0], start[1] + nearest * ray[1]
    inside = thing.radius**2 - x * x - y * y
    half = np.sqrt(np.maximum(inside, 0) / across)
    enter = np.maximum(low, nearest - half)
    leave = np.where(inside > 0, np.minimum(high, nearest + half), -np.inf)
    return enter, leave, np.where(low > nearest - half, 2, -1).astype(np.int8)


def _slab(start: np.ndarray, ray: np.ndarray, half: float) -> tuple[np.ndarray, np.ndarray]:
    ray = np.where(np.abs(ray) < 1e-9, np.float32(1e-9), ray)
    middle, width = -start / ray, np.float32(half) / np.abs(ray)
    return middle - width, middle + width


def turned(v: np.ndarray, angle: float) -> np.ndarray:
    """Vectors [3, ...] turned about z."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return np.stack([c * v[0] - s * v[1], s * v[0] + c * v[1], v[2]])


def outward(thing: Thing, at: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """The unit normal float32[3, m] at points [3, m] of an object's surface, from its middle; `flat` as in `crossed`."""
    if thing.shape == "sphere":
        return at / np.float32(thing.radius)
    if thing.shape == "cube":
        at = turned(at, -thing.yaw)
        square = np.sign(at) * (np.arange(3)[:, None] == flat)
        return turned(square.astype(np.float32), thing.yaw)
    round_ = np.stack([at[0], at[1], np.zeros_like(at[0])]) / np.float32(thing.radius)
    top = np.stack([np.zeros_like(at[0]), np.zeros_like(at[0]), np.sign(at[2])])
    return np.where(flat == 2, top, round_).astype(np.float32)


def face_of(thing: Thing, at: np.ndarray, flat: np.ndarray) -> np.ndarray:
    """Which surface of an object a point is on, int8[m]: 0 = the round one; flat ones 1 + 2 axis + (the lower end)."""
    at = turned(at, -thing.yaw) if thing.shape == "cube" else at
    low = np.take_along_axis(at, np.maximum(flat, 0)[None], 0)[0] < 0
    return np.where(flat < 0, 0, 1 + 2 * flat + low).astype(np.int8)


def trace(things: tuple[Thing, ...], views: list[View], centres: np.ndarray, side: int) -> Hits:
    """Sends all rays of all views.

    Args:
      centres: float64[V, things, 3], middles of the things when each view is taken.
    """
    pixels, count = pixel_rays(side), len(views)
    axes = np.stack([v.rotation for v in views], 1).astype(np.float32)  # [camera, V, world]
    ray = np.stack([dot(axes[:, :, c, None], pixels[:, None]) for c in range(3)])  # [3, V, P]
    length = dot(pixels, pixels)
    origin = np.stack([v.origin for v in views])
    height = origin[:, 2].astype(np.float32)[:, None]
    down = np.minimum(ray[2], np.float32(-1e-9))
    depth = -height / down
    hit = depth < FAR
    depth = np.where(hit, depth, np.float32(FAR))
    normal = np.zeros((3, count, pixels.shape[1]), np.float32)
    normal[2] = hit
    face, thing_at = np.zeros((2, count, pixels.shape[1]), np.int8)
    flat_ray, flat_normal = ray.reshape(3, -1), normal.reshape(3, -1)
    flat_depth, covered = depth.reshape(-1), np.zeros(len(things), np.int64)
    for k, thing in enumerate(things):
        start = (origin - centres[:, k]).astype(np.float32)  # [V, 3]
        ahead = dot(start.T[:, :, None], ray)
        beyond = (start * start).sum(1) - np.float32(
            (BALL[thing.shape] * thing.radius) ** 2 * 1.001
        )
        near = np.flatnonzero(ahead * ahead > beyond[:, None] * length)
        begin, go = start.T[:, near // pixels.shape[1]], flat_ray[:, near]
        enter, leave, flat = crossed(thing, begin, go)
        met = (enter < leave) & (enter > NEAR)
        covered[k] = np.count_nonzero(met & (near < pixels.shape[1]))
        met &= enter < flat_depth[near]
        near, enter, flat = near[met], enter[met], flat[met]
        at = begin[:, met] + enter * go[:, met]
        flat_depth[near] = enter
        flat_normal[:, near] = outward(thing, at, flat)
        face.reshape(-1)[near] = face_of(thing, at, flat)
        thing_at.reshape(-1)[near] = k + 1
    point = origin.T.astype(np.float32)[:, :, None] + depth * ray
    return Hits(depth, thing_at, face, normal, point, ray, covered)


@dataclasses.dataclass(frozen=True, slots=True)
class Light:
    """How the points that were met look: rgb = albedo * shading + specular.

    Attributes:
      albedo: uint8[V, P, 3]. shading: float32[V, P], 0 .. 1. specular: float32[V, P], 0 .. 1, of metal alone.
      shadow: bool[V, P], where an object keeps the light from a point. rgb: uint8[V, P, 3].
    """

    albedo: np.ndarray
    shading: np.ndarray
    specular: np.ndarray
    shadow: np.ndarray
    rgb: np.ndarray


def lit(scene: Scene, hits: Hits, centres: np.ndarray) -> Light:
    """Albedo, shading and gloss of what was met.

    The light is white and far away (all its rays are parallel); the sky's own light falls from above:
    shading = AMBIENT (3 + n_z) / 4 + DIFFUSE max(n . light, 0), the second term outside of shadows. Metal has less of
    it, and a mirror image of bright sky over dark ground, and of the light (Blinn and Phong).
    """
    to_light = direction(*scene.light).astype(np.float32)
    facing = dot(to_light, hits.normal)
    shadow = _shadows(scene.things, hits, centres, to_light, facing)
    sun = np.maximum(facing, 0) * ~shadow
    shading = np.float32(AMBIENT) * (3 + hits.normal[2]) / 4 + np.float32(DIFFUSE) * sun
    sky = hits.depth == FAR
    up = hits.ray[:, sky]
    rise = up[2] / np.sqrt(dot(up, up))
    shading[sky] = 1 - np.float32(0.6) * np.clip(rise + 0.1, 0, 0.5)
    specular = np.zeros_like(shading)
    metal = np.array([False] + [t.material == "metal" for t in scene.things])
    at = np.nonzero(metal[hits.thing])
    if len(at[0]):
        n, ray = hits.normal[:, *at], hits.ray[:, *at]
        ray = ray / np.sqrt(dot(ray, ray))
        mirrored = ray[2] - 2 * dot(ray, n) * n[2]
        between = to_light[:, None] - ray
        between /= np.sqrt(dot(between, between))
        glance = _gloss(np.maximum(dot(n, between), 0)) * (sun[at] > 0)
        mirror = np.clip(0.5 + 2 * mirrored, 0, 1)
        specular[at] = np.float32(GLANCE) * glance + np.float32(MIRROR) * mirror
        shading[at] *= np.float32(METAL_BODY)
    albedo = _albedo(scene, hits, sky)
    shown = albedo * shading[..., None]
    shown[at] += 255 * specular[at][:, None]
    rgb = np.minimum(shown + np.float32(0.5), 255).astype(np.uint8)
    return Light(albedo, shading, specular, shadow & (facing > 0), rgb)


def _gloss(x: np.ndarray) -> np.ndarray:
    """x^40."""
    x8 = np.square(np.square(np.square(x)))
    return np.square(np.square(x8)) * x8


def _albedo(scene: Scene, hits: Hits, sky: np.ndarray) -> np.ndarray:
    ground = np.array(GROUNDS[scene.ground])
    colours = [COLOURS[t.colour] for t in scene.things]
    table = np.array([ground, *colours, np.round(ground * DARK), SKIES[scene.sky]], np.uint8)
    tile = np.floor(hits.point[:2] / np.float32(TILE)).astype(np.int32)
    dark = ((tile[0] + tile[1]) & 1).astype(bool) & (hits.thing == 0)
    which = np.where(dark, len(table) - 2, hits.thing)
    which[sky] = len(table) - 1
    return table[which]


def _shadows(
    things: tuple[Thing, ...],
    hits: Hits,
    centres: np.ndarray,
    to_light: np.ndarray,
    facing: np.ndarray,
):
    """bool[V, P]: points that a thing hides from the light; a thing hides its own far side by `facing`."""
    shadow = np.zeros(hits.depth.shape, bool)
    lightwards, square = dot(to_light, hits.point), dot(hits.point, hits.point)
    can = (facing > 0) & (hits.depth < FAR)
    points, flat = hits.point.reshape(3, -1), shadow.reshape(-1)
    for k, thing in enumerate(things):
        c = centres[:, k].astype(np.float32)
        ahead = lightwards - (c @ to_light)[:, None]
        off = (
            square - 2 * dot(c.T[:, :, None], hits.point) + (c * c).sum(1)[:, None] - ahead * ahead
        )
        reach = np.float32(BALL[thing.shape] * thing.radius)
        maybe = (off < reach * reach * 1.001) & (ahead < reach) & can & (hits.thing != k + 1)
        near = np.flatnonzero(maybe)
        start = points[:, near] - c.T[:, near // hits.depth.shape[1]]
        enter, leave, _ = crossed(thing, start, to_light[:, None])
        flat[near] |= (enter < leave) & (leave > 0)
    return shadow
