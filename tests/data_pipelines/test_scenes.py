"""Scenes against slow references: what a ray meets, how it looks, where it goes, what it sounds like."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.scenes import MODALITIES, Record, record
from data_pipelines.scenes.drawing import draw
from data_pipelines.scenes.record import shape_of
from data_pipelines.scenes.render import AMBIENT, DARK, DIFFUSE, FAR
from data_pipelines.scenes.sound import audio, heard
from data_pipelines.scenes.world import (
    BASELINE,
    COLOURS,
    FOCAL,
    FRAMES,
    GROUNDS,
    Scene,
    direction,
)
from mm.errors import UserError

SIDE = 64
INDICES = range(8)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [record(3, i) for i in INDICES]


def distance(scene: Scene, frame: int, point: np.ndarray) -> tuple[float, int]:
    """How far a point is from the nearest surface, and whose it is (0 = the ground): signed distances, no rays."""
    found = [(point[2], 0)]
    for k, thing in enumerate(scene.things):
        q = point - thing.middle(frame)
        if thing.shape == "sphere":
            found.append((np.linalg.norm(q) - thing.radius, k + 1))
            continue
        if thing.shape == "cube":
            c, s = np.cos(thing.yaw), np.sin(thing.yaw)
            q = np.abs([c * q[0] + s * q[1], -s * q[0] + c * q[1], q[2]]) - thing.half
        else:
            q = np.array([np.hypot(q[0], q[1]) - thing.radius, abs(q[2]) - thing.half])
        found.append((np.linalg.norm(np.maximum(q, 0)) + min(q.max(), 0), k + 1))
    return min(found)


def marched(scene: Scene, frame: int, start: np.ndarray, ray: np.ndarray, far: float):
    """Goes along a unit ray in steps of the distance -> (length, whose surface; None = none before `far`)."""
    at, grazed = 0.0, np.inf
    for _ in range(400):
        free, who = distance(scene, frame, start + at * ray)
        if free < 1e-6:
            return at, who, grazed
        at += free
        grazed = min(grazed, free / max(at, 1e-3)) if who else grazed
        if at > far:
            break
    return at, None, grazed


def normal_of(scene: Scene, frame: int, point: np.ndarray) -> np.ndarray:
    """The slope of the distance."""
    steps = np.eye(3) * 1e-4
    slope = [
        distance(scene, frame, point + e)[0] - distance(scene, frame, point - e)[0] for e in steps
    ]
    return np.array(slope) / np.linalg.norm(slope)


def expected(scene: Scene, frame: int, x: int, y: int):
    """Depth, whose surface, normal and colour (None of metal) of a pixel, one step after the other."""
    view = scene.path.view(frame)
    camera = np.array([(x + 0.5 - SIDE / 2) / FOCAL / SIDE, (y + 0.5 - SIDE / 2) / FOCAL / SIDE, 1])
    ray = view.rotation.T @ camera / np.linalg.norm(camera)
    length, who, _ = marched(scene, frame, view.origin, ray, 40)
    depth = length / np.linalg.norm(camera)
    if who is None or depth > FAR:
        return FAR, 0, np.zeros(3), None
    point = view.origin + length * ray
    normal, light = normal_of(scene, frame, point), direction(*scene.light)
    if who:
        albedo = np.array(COLOURS[scene.things[who - 1].colour], float)
        if scene.things[who - 1].material == "metal":
            return depth, who, normal, None
    else:
        dark = int(np.floor(point[0]) + np.floor(point[1])) % 2
        albedo = np.round(np.array(GROUNDS[scene.ground]) * (DARK if dark else 1))
    dark = marched(scene, frame, point + 2e-3 * normal, light, 8)[1] is not None
    shading = AMBIENT * (3 + normal[2]) / 4 + DIFFUSE * max(normal @ light, 0) * (not dark)
    return depth, who, normal, albedo * shading


def test_pixels_are_what_a_slow_march_along_their_rays_finds(records):
    rng, wrong, coloured = np.random.default_rng(0), 0, 0
    places = [(r, *rng.integers(0, SIDE, 2)) for r in records for _ in range(10)]
    for r in records:  # objects are a tenth of a picture
        y, x = np.nonzero(r["instance"])
        places += [(r, x[i], y[i]) for i in rng.integers(0, len(x), 10)]
    for r, x, y in places:
        depth, who, normal, colour = expected(r.scene, 0, int(x), int(y))
        same = r["instance"][y, x] == who and abs(r["depth"][y, x] - depth) < 2e-3
        same &= np.allclose(r["normals"][y, x], r.view(0).rotation @ normal, atol=5e-3)
        if colour is not None:
            coloured += 1
            same &= np.abs(r["rgb"][y, x] - colour).max() < 1.5
        wrong += not same
    assert coloured > 60
    assert wrong <= 2, f"{wrong} of {len(places)}"  # a march misses what rays graze


def test_shadows_are_where_something_stands_before_the_light(records):
    rng, dark, wrong = np.random.default_rng(2), 0, 0
    for r in records:
        light, found = direction(*r.scene.light), r.map("shadow").ravel()
        normal, point = r.map("normal").reshape(-1, 3), r.map("point").reshape(-1, 3)
        near = (np.linalg.norm(point, axis=1) < 5) & (normal @ light > 0.05)
        for shadow in (True, False):
            places = np.flatnonzero(near & (found == shadow))
            for i in rng.permutation(places)[:12]:
                start = point[i].astype(np.float64) + 2e-3 * normal[i]
                hidden = marched(r.scene, 0, start, light, 8)[1] is not None
                wrong, dark = wrong + (hidden != shadow), dark + shadow
    assert dark > 50 and wrong <= 2  # at the rim of a shadow


def test_frames_move_as_the_camera_and_the_objects_do(records):
    r = next(r for r in records if any(t.vx for t in r.scene.things))
    frame = Record(r.scene, names=["video"])["video"][5]
    rng, wrong = np.random.default_rng(1), 0
    for x, y in rng.integers(0, SIDE, (25, 2)):
        colour = expected(r.scene, 5, int(x), int(y))[3]
        wrong += colour is not None and np.abs(frame[y, x] - colour).max() > 1.5
    assert wrong <= 1
    assert np.array_equal(r["video"][0], r["rgb"])
    assert not np.array_equal(r["video"][5], r["rgb"])


def test_a_record_is_a_function_of_seed_and_index_alone(records):
    again = record(3, 5)
    for name in reversed(MODALITIES):  # in another order, with other ones made before
        assert np.array_equal(again[name], records[5][name]), name
        assert np.array_equal(record(3, 5, names=[name])[name], records[5][name]), name
        other = record(4, 5)[name]
        assert np.shape(other) != np.shape(again[name]) or not np.array_equal(other, again[name])


def test_scenes_do_not_depend_on_the_side_of_the_pictures():
    small, large = record(3, 5, side=16), record(3, 5, side=48)
    assert small.scene == large.scene
    assert [b["label"] for b in small["boxes"]] == [b["label"] for b in large["boxes"]]
    np.testing.assert_array_equal(small["poses"], large["poses"])


@pytest.mark.parametrize("side", [32, 64])
def test_arrays_have_the_shapes_and_types_that_are_said(side):
    r = record(0, 1, side=side)
    for name, kind in MODALITIES.items():
        if kind.shape is not None:
            assert r[name].shape == shape_of(name, side) and r[name].dtype == kind.dtype, name
            assert r[name].dtype != np.float32 or np.isfinite(r[name]).all(), name


def test_an_unknown_modality_is_named():
    with pytest.raises(UserError, match="no modality 'dept'; did you mean 'depth'"):
        record(0, 0)["dept"]


def test_normals_are_the_slope_of_depth_inside_of_surfaces(records):
    for r in records:
        at = np.stack(
            [
                *np.meshgrid(*[np.arange(SIDE) + 0.5 - SIDE / 2] * 2),
                np.full((SIDE, SIDE), FOCAL * SIDE),
            ],
            -1,
        )
        point = at / (FOCAL * SIDE) * r["depth"][..., None].astype(np.float64)
        slope = np.cross(point[2:, 1:-1] - point[:-2, 1:-1], point[1:-1, 2:] - point[1:-1, :-2])
        slope /= np.linalg.norm(slope, axis=-1, keepdims=True)
        edge = r["edges"] > 0
        near_edge = np.zeros_like(edge)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                near_edge |= np.roll(edge, (dy, dx), (0, 1))
        inside = (~near_edge & (r["depth"] < FAR))[1:-1, 1:-1]
        cosine = (slope * r["normals"][1:-1, 1:-1]).sum(-1)[inside]
        assert len(cosine) > 1000 and np.quantile(cosine, 0.01) > 0.99 and cosine.min() > 0.9


def test_flow_leads_to_the_same_point_where_that_is_seen(records):
    for r in records:
        whole = Record(r.scene, names=["video"])
        hits = whole.views([1])[0][0]
        later = {n: getattr(hits, n)[..., 1, :] for n in ("thing", "point", "depth")}
        y, x = np.mgrid[:SIDE, :SIDE]
        to = np.stack([x, y], -1) + r["flow"]
        at = np.floor(to + 0.5).astype(int)  # the pixel that it comes to lie in
        inside = ((at >= 0) & (at < SIDE)).all(-1) & (r["depth"] < FAR)
        pixel = (at[..., 1] * SIDE + at[..., 0])[inside]
        moves = np.array([(0, 0, 0), *((t.vx, t.vy, 0) for t in r.scene.things)])
        point = (r.map("point") + moves[r["instance"]])[inside]
        same = later["thing"][pixel] == r["instance"][inside]
        depth = r.view(1).seen(point)[:, 2]
        seen = same & (np.abs(depth - later["depth"][pixel]) < 0.2)
        assert seen.mean() > 0.8
        # The pixel's own point is half a pixel away at most; the rest of the way is this point's.
        exact = r.view(1).projected(point, SIDE) - 0.5
        np.testing.assert_allclose(exact, to[inside], atol=2e-3)
        own = r.view(1).projected(later["point"].T[pixel[seen]].astype(np.float64), SIDE) - 0.5
        assert np.abs(own - to[inside][seen]).max() < 0.502
        assert np.array_equal(r["albedo"][inside][seen & (r["instance"][inside] > 0)],
                              whole.views([1])[0][1].albedo[1][pixel[seen & (r["instance"][inside] > 0)]])  # fmt: skip


def test_flow_of_what_does_not_move_is_nothing():
    scene = draw(0, 3, (3, 3))
    still = tuple(dataclasses.replace(t, vx=0, vy=0) for t in scene.things)
    path = dataclasses.replace(scene.path, turn=0, rise=0, near=0)
    r = Record(dataclasses.replace(scene, things=still, path=path))
    assert np.abs(r["flow"]).max() < 1e-3
    assert (r["video"] == r["rgb"]).all() and not r["trajectory"].any()


def test_masks_share_out_the_instance_map_and_boxes_are_tight(records):
    for r in records:
        n = len(r.scene.things)
        assert np.array_equal(r["masks"].sum(0), r["instance"] > 0)
        assert not r["masks"][n:].any() and r["masks"][:n].any((1, 2)).all()
        for k, found in enumerate(r["boxes"]):
            mask, (x0, y0, x1, y1) = r["masks"][k], found["box"]
            assert np.array_equal(mask, r["instance"] == k + 1)
            assert mask[y0:y1, x0:x1].sum() == mask.sum()
            assert all(s.any() for s in (mask[y0], mask[y1 - 1], mask[:, x0], mask[:, x1 - 1]))
            assert found["label"] == r.scene.things[k].name
            shape = r.scene.things[k].shape
            assert (r["semantic"][mask] == 2 + ["cube", "sphere", "cylinder"].index(shape)).all()
        assert np.array_equal(r["semantic"] == 0, r["depth"] == FAR)


def test_colours_are_albedo_times_shading_and_gloss(records):
    for r in records:
        metal = np.array([False] + [t.material == "metal" for t in r.scene.things])[r["instance"]]
        made = r["albedo"].astype(float) * r["shading"][..., None]
        assert np.abs(made - r["rgb"])[~metal].max() <= 0.51
        assert not r["specular"][~metal].any()
        made = np.minimum(made + 255 * r["specular"][..., None], 255)
        assert np.abs(made - r["rgb"]).max() <= 0.51
        assert r["shading"].min() > 0 and r["shading"].max() <= 1.0001


def test_the_second_view_shows_each_point_where_its_depth_says(records):
    for r in records:
        assert not np.array_equal(r["view"], r["rgb"])
        disparity = FOCAL * SIDE * BASELINE / r["depth"]
        y, x = np.mgrid[:SIDE, :SIDE]
        at = np.rint(x - disparity).astype(int)
        other = Record(r.scene, names=["view"])
        hits, light, i = other.views([FRAMES])[0]
        ok = (at >= 0) & (r["instance"] > 0)
        pixel = y[ok] * SIDE + at[ok]
        seen = np.abs(hits.depth[i][pixel] - r["depth"][ok]) < 0.1
        assert seen.mean() > 0.7
        assert (hits.thing[i][pixel][seen] == r["instance"][ok][seen]).mean() > 0.98
        assert np.array_equal(light.rgb[i].reshape(SIDE, SIDE, 3), r["view"])


def test_points_and_poses_are_where_depth_says(records):
    for r in records:
        xyz = r["points"][:, :3].astype(np.float64)
        pixel = np.floor(xyz[:, :2] / xyz[:, 2:] * FOCAL * SIDE + SIDE / 2).astype(int)
        x, y = pixel.T
        np.testing.assert_allclose(r["depth"][y, x], xyz[:, 2], rtol=1e-6)
        np.testing.assert_allclose(r["rgb"][y, x] / 255, r["points"][:, 3:], atol=1e-6)
        for k, thing in enumerate(r.scene.things):
            own = xyz[r["instance"][y, x] == k + 1] - r["poses"][k, :3]
            reach = np.linalg.norm(own, axis=1)
            assert (reach < 1.42 * thing.radius + 1e-4).all()
            if thing.shape == "sphere":
                np.testing.assert_allclose(reach, thing.radius, atol=1e-4)


def test_the_trajectory_is_the_way_of_the_camera(records):
    for r in records:
        first, last = r.view(0), r.view(7)
        point = np.array([[0.3, -1.2, 0.5], [1, 2, 0.1]])
        vector = r["trajectory"][7, 3:].astype(np.float64)
        angle = np.linalg.norm(vector)
        cross = np.cross(np.eye(3), vector / angle)
        rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
        moved = (first.seen(point) - r["trajectory"][7, :3]) @ rotation
        np.testing.assert_allclose(moved, last.seen(point), atol=1e-5)


def test_edges_are_where_neighbours_are_of_different_surfaces(records):
    for r in records:
        i, edge = r["instance"].astype(int), r["edges"] > 0
        assert edge[:, :-1][i[:, :-1] != i[:, 1:]].all() and edge[:-1][i[:-1] != i[1:]].all()
        n = r["normals"]
        turn = (n[:-1, :-1] * n[:-1, 1:]).sum(-1)
        flat = (i[:-1, :-1] == 0) & (i[1:, :-1] == 0) & (i[:-1, 1:] == 0)
        sky = (r["depth"] == FAR).astype(int)
        same = (sky[:-1, :-1] == sky[:-1, 1:]) & (sky[:-1, :-1] == sky[1:, :-1])
        assert not edge[:-1, :-1][flat & same].any()  # none within ground and sky
        cubes = [k + 1 for k, t in enumerate(r.scene.things) if t.shape == "cube"]
        within = np.isin(i[:-1, :-1], cubes) & (i[:-1, :-1] == i[:-1, 1:])
        assert edge[:-1, :-1][within & (turn < 0.9)].all()


def test_each_object_sounds_when_where_and_as_what_it_is():
    for index in range(20):
        scene = draw(1, index, (1, 6))
        places = scene.places(1)
        near = np.argsort(places[:, 2])
        samples = audio(scene)
        assert np.abs(samples).max() <= 1 and not samples[:160].any()
        found = heard(samples)
        assert len(found) == len(scene.things)
        for said, k in zip(found, near, strict=True):
            assert [said[n] for n in ("shape", "size", "material")] == [
                getattr(scene.things[k], n) for n in ("shape", "size", "material")
            ]
            assert abs(said["across"] - places[k, 0]) < 1e-3
            assert abs(said["depth"] - places[k, 2]) < 1e-2
        left, right = np.square(samples[160:1200]).sum(0)  # the nearest one, alone
        assert (left > right) == (places[near[0], 0] < 0.5)


def test_metadata_counts_what_is_there(records):
    for r in records:
        told, things = r["metadata"], r.scene.things
        assert len(told) >= 20
        assert told["objects"] == len(things) == told["cubes"] + told["spheres"] + told["cylinders"]
        assert told["metal_objects"] == sum(t.material == "metal" for t in things)
        assert told["sky_share"] == round(float((r["semantic"] == 0).mean()), 3)
        assert 0 <= told["hidden_share"] < 1
        colours = {tuple(c) for c in r["palette"]}
        assert colours <= {tuple(c) for c in r["albedo"].reshape(-1, 3)} and len(colours) <= 7
        first = (r["albedo"] == r["palette"][0]).all(-1).sum()
        assert all((r["albedo"] == c).all(-1).sum() <= first for c in r["palette"])


def test_what_is_hidden_is_measured():
    for index in range(30):
        r = record(0, index)
        seen = r["masks"].sum((1, 2))[: len(r.scene.things)]
        alone = []
        for thing in r.scene.things:
            one = Record(dataclasses.replace(r.scene, things=(thing,)), names=["instance"])
            alone.append(int((one["instance"] == 1).sum()))
        assert r.covered.tolist() == alone and (seen <= alone).all()
