"""The rooms' labels against the geometry that they claim to describe."""

from __future__ import annotations

import numpy as np
import pytest

from edgemtl.data.rooms.camera import CLEARANCE, Camera, choose_view, roomiest_view
from edgemtl.data.rooms.classes import CLASSES, PALETTE
from edgemtl.data.rooms.labels import edges, smooth_on_surface
from edgemtl.data.rooms.materials import Material, Texture, albedo, pack, sample_solid
from edgemtl.data.rooms.raycast import Caster
from edgemtl.data.rooms.render import View, render
from edgemtl.data.rooms.scene import Footprint, Light, Scene, SceneBuilder, Solid, move, turn
from edgemtl.data.rooms.shade import hemisphere, pattern
from edgemtl.data.rooms.shapes import Shape, unit_mesh
from edgemtl.data.rooms.write import RoomSet, make_view, room

JOB = RoomSet(seed=11, count=8, height=48, width=96)


@pytest.fixture(scope="module")
def views() -> list[View]:
    return [make_view(JOB, i) for i in range(JOB.count)]


def camera_of(image: int) -> tuple[Scene, Camera]:
    scene, caster = room(JOB.seed, image // 4)
    return scene, choose_view(scene, caster, np.random.default_rng(np.random.SeedSequence([JOB.seed, 1, image])))


def test_classes_and_palette() -> None:
    assert CLASSES == ("wall", "floor", "ceiling", "table", "chair", "shelf", "picture", "door", "lamp", "box", "ball",
                       "cylinder", "cone")  # fmt: skip
    assert len(set(PALETTE)) == 13
    assert all(0 <= v <= 255 for colour in PALETTE for v in colour)


def test_types_and_ranges(views: list[View]) -> None:
    for v in views:
        assert v.rgb.shape == (48, 96, 3)
        assert v.rgb.dtype == np.uint8
        assert v.depth.dtype == v.normals.dtype == np.float32
        assert v.depth.min() > 0.2
        assert v.depth.max() < 10
        assert v.semseg.max() < 13
        assert set(np.unique(v.edge)) == {0, 1}
        assert 40 < v.rgb.mean() < 215
        assert v.rgb.std() > 20


def test_normals_are_unit_and_face_the_camera(views: list[View]) -> None:
    for i, v in enumerate(views):
        np.testing.assert_allclose(np.linalg.norm(v.normals, axis=-1), 1, atol=1e-5)
        camera = camera_of(i)[1]
        rays = camera.rays(48, 96).reshape(48, 96, 3) @ camera.axes().T
        assert ((v.normals * rays).sum(-1) < 1e-5).all()


def test_floor_and_ceiling_lie_where_depth_and_normals_say(views: list[View]) -> None:
    seen = 0
    for i, v in enumerate(views):
        scene, camera = camera_of(i)
        points = np.array(camera.eye) + camera.rays(48, 96).reshape(48, 96, 3) * v.depth[..., None]
        world = v.normals @ camera.axes()
        floor = v.semseg == CLASSES.index("floor")
        seen += int(floor.sum())
        np.testing.assert_allclose(points[floor][:, 2], 0, atol=1e-4)
        np.testing.assert_allclose(world[floor], np.broadcast_to([0, 0, 1], world[floor].shape), atol=1e-4)
        assert (points[..., 2] > -1e-4).all()
        assert (points[..., 2] < scene.height + 1e-4).all()
        assert (np.abs(points[..., 0]) < scene.width / 2 + 1e-4).all()
    assert seen > 500


def test_wall_pixels_of_one_wall_share_a_plane(views: list[View]) -> None:
    checked = 0
    for i, v in enumerate(views):
        camera = camera_of(i)[1]
        points = camera.rays(48, 96).reshape(48, 96, 3) * v.depth[..., None] @ camera.axes().T
        walls = v.semseg == CLASSES.index("wall")
        for instance in np.unique(v.instance[walls]):
            at = walls & (v.instance == instance)
            normals = v.normals[at]
            same = normals @ normals[0] > 0.99
            offset = (points[at][same] * normals[0]).sum(-1)
            np.testing.assert_allclose(offset, offset[0], atol=2e-3)
            checked += int(same.sum())
    assert checked > 2000


def test_every_class_is_seen_often_enough() -> None:
    job = RoomSet(seed=2, count=160, height=16, width=32)
    share = np.zeros(13)
    for i in range(0, job.count, 2):
        share += np.bincount(make_view(job, i).semseg.ravel(), minlength=13) / (16 * 32 * 80)
    assert share.min() > 0.012, dict(zip(CLASSES, share.round(4), strict=True))


def test_the_camera_keeps_clear_of_furniture() -> None:
    for i in range(JOB.count):
        scene, camera = camera_of(i)
        x, y, _ = camera.eye
        assert all(f.distance(x, y) > CLEARANCE for f in scene.footprints if f.solid)


def test_a_room_too_full_to_choose_still_gives_a_view() -> None:
    full = Footprint(0, 0.3, 1.9, 1.6, 0.0)
    scene = Scene(4, 4, 2.5, [], [], [full], [])
    camera = roomiest_view(scene)
    x, y, _ = camera.eye
    assert full.distance(x, y) > 0.2
    assert np.hypot(camera.target[0], camera.target[1]) < np.hypot(x, y)


def ball_room() -> tuple[Caster, list[Light]]:
    """A ball of radius 1 at the origin inside a large closed box, lit from one side."""
    paint = sample_solid(np.random.default_rng(0))
    solids = [
        Solid(Shape.BOX, np.diag([20.0, 20.0, 20.0, 1.0]), 0, 1, paint),
        Solid(Shape.BALL, np.diag([2.0, 2.0, 2.0, 1.0]), 10, 2, paint),
    ]
    light = Light((4.0, 0.0, 3.0), (1.0, 1.0, 1.0), 10.0, radius=0.1, shell=0.1)
    return Caster(Scene(20, 20, 20, solids, [light], [], [])), [light]


def test_a_ball_has_exact_normals_depth_and_axes() -> None:
    caster, lights = ball_room()
    camera = Camera((0.0, -4.0, 0.0), (0.0, 0.0, 0.0), 60.0)
    v = render(caster, lights, camera, (65, 65), np.random.default_rng(0))
    ball = v.semseg == 10
    assert v.depth[32, 32] == pytest.approx(3.0, abs=0.01)
    np.testing.assert_allclose(v.normals[32, 32], [0, 0, 1], atol=0.02)
    rows, columns = np.nonzero(ball)
    left, right = v.normals[32, columns[rows == 32].min()], v.normals[32, columns[rows == 32].max()]
    assert left[0] < -0.85
    assert right[0] > 0.85
    assert v.normals[rows.min(), 32, 1] > 0.85  # the top of the ball looks up
    points = camera.rays(65, 65).reshape(65, 65, 3) * v.depth[..., None] @ camera.axes().T - [0, 0, -4.0]
    exact = points[ball] / np.linalg.norm(points[ball], axis=-1, keepdims=True)
    # tilted at the very rim only; elsewhere the normal is the radius although the mesh has facets
    assert np.quantile((exact * v.normals[ball]).sum(-1), 0.05) > 0.9999
    luma = v.rgb.mean(-1)
    assert luma[32, 44] > luma[32, 20] + 10  # the light is on the right


def test_planar_depth_does_not_grow_towards_the_corners() -> None:
    caster, lights = ball_room()
    v = render(caster, lights, Camera((0, 8, 0), (0, 9, 0), 90.0), (16, 32), np.random.default_rng(0))
    np.testing.assert_allclose(v.depth, 2.0, atol=1e-4)  # a wall seen head-on


def test_edges_are_where_something_changes_and_nowhere_else(views: list[View]) -> None:
    for v in views:
        change = np.zeros(v.edge.shape, bool)
        for axis in (0, 1):
            n = v.edge.shape[axis] - 1
            a, b = (np.take(np.arange(n + 1), np.arange(n) + k) for k in (0, 1))
            differs = np.take(v.instance, a, axis) != np.take(v.instance, b, axis)
            za, zb = np.take(v.depth, a, axis), np.take(v.depth, b, axis)
            differs |= np.abs(za - zb) > 0.08 * np.minimum(za, zb)
            differs |= (np.take(v.normals, a, axis) * np.take(v.normals, b, axis)).sum(-1) < 0.7
            change[: n if axis == 0 else None, : n if axis == 1 else None] |= differs
        assert not (v.edge.astype(bool) & ~change).any()
        assert 0.02 < v.edge.mean() < 0.45


def flat(height: int = 6, width: int = 8) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Instance, depth, normal and point of a wall two metres ahead."""
    y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(0.01)
    depth = np.full((height, width), 2, np.float32)
    normal = np.broadcast_to(np.float32([0, 0, 1]), (height, width, 3)).copy()
    return np.zeros((height, width), int), depth, normal, np.stack([x, -y, -depth], -1).astype(np.float32)


@pytest.mark.parametrize("what", ["instance", "depth", "crease"])
def test_each_kind_of_edge_is_one_pixel_wide(what: str) -> None:
    instance, depth, normal, point = flat()
    assert edges(instance, depth, normal, point).sum() == 0
    if what == "instance":
        instance[:, 4:] = 1
    elif what == "depth":
        depth[:, 4:] = 2.2
        point[:, 4:, 2] = -2.2
    else:
        normal[:, 4:] = [0.8, 0, 0.6]
    found = edges(instance, depth, normal, point)
    assert found[:, 3].all()
    assert found.sum() == 6


def test_a_slanted_plane_is_no_edge() -> None:
    instance, depth, normal, point = flat()
    point[..., 2] = -2 - 40 * point[..., 0]  # 20 % per pixel, all on one plane
    depth[:] = -point[..., 2]
    normal[:] = np.float32([40, 0, 1]) / np.float32(np.hypot(40, 1))
    assert edges(instance, depth, normal, point).sum() == 0


def test_smoothing_stays_on_its_surface() -> None:
    instance, depth, normal, point = flat(16, 16)
    instance[:, 8:] = 1
    value = np.zeros((16, 16, 1), np.float32)
    value[:, 8:] = 1
    np.testing.assert_array_equal(smooth_on_surface(value, instance, depth, normal, point, 4), value)
    noise = np.random.default_rng(0).random((4, 4)).astype(np.float32)
    tiled = np.tile(noise, (4, 4))[..., None]
    smooth = smooth_on_surface(tiled, np.zeros_like(instance), depth, normal, point, 4)
    np.testing.assert_allclose(smooth[4:-4, 4:-4], noise.mean(), atol=1e-6)


@pytest.mark.parametrize("shape", list(Shape))
def test_meshes_are_closed(shape: Shape) -> None:
    triangles, smooth = unit_mesh(shape)
    assert len(triangles) == len(smooth)
    assert np.abs(triangles).max() <= 0.5 + 1e-6
    ends = np.round(triangles, 4) + 0.0
    count: dict[tuple[bytes, bytes], int] = {}
    for t in ends:
        for k in range(3):
            a, b = sorted((t[k].tobytes(), t[(k + 1) % 3].tobytes()))
            if a != b:
                count[a, b] = count.get((a, b), 0) + 1
    assert set(count.values()) == {2}


def test_every_texture_gives_its_colours() -> None:
    rng = np.random.default_rng(1)
    for texture in Texture:
        material = Material(
            texture, (0.9, 0.1, 0.1), (0.1, 0.1, 0.9), (0.1, 0.9, 0.1), frequency=6.0, phase=(0.2, 0.3, 0.4)
        )
        local = rng.uniform(-0.5, 0.5, (4000, 3)).astype(np.float32)
        colour = albedo(pack([material]), np.zeros(4000, int), local, np.ones((4000, 3), np.float32))
        assert colour.min() >= 0
        assert colour.max() <= 1.1
        assert colour.std(0).max() > 0.05 or texture == Texture.FLAT
        assert np.allclose(colour[0], material.first) or texture != Texture.FLAT


def test_rectangles_overlap_as_they_should() -> None:
    a = Footprint(0, 0, 1, 0.5, 0)
    assert a.overlaps(Footprint(1.4, 0, 0.5, 0.5, 0))
    assert not a.overlaps(Footprint(1.6, 0, 0.5, 0.5, 0))
    assert a.overlaps(Footprint(1.6, 0, 0.5, 0.5, np.pi / 4))  # its corner reaches further
    assert a.distance(2, 0) == pytest.approx(1)
    assert Footprint(0, 0, 1, 0.5, np.pi / 2).distance(0, 2) == pytest.approx(1)


def test_builder_places_nothing_on_top_of_anything() -> None:
    b = SceneBuilder(np.random.default_rng(0), 4, 4, 2.5)
    for _ in range(30):
        b.place(0.4, 0.3, gap=0.0)
    assert len(b.footprints) > 5
    for i, one in enumerate(b.footprints):
        assert not any(one.overlaps(other) for other in b.footprints[:i])
    assert np.allclose((move(1, 2, 3) @ turn(np.pi / 2) @ [1, 0, 0, 1])[:3], [1, 3, 3])


def test_sampling_patterns_are_even() -> None:
    draws = pattern(8, 8, 4, 2, 3, np.random.default_rng(0))
    assert draws.shape == (64, 2, 3)
    np.testing.assert_array_equal(draws.reshape(8, 8, 2, 3)[:4, :4], draws.reshape(8, 8, 2, 3)[4:, 4:])
    cell = draws.reshape(8, 8, 2, 3)[:4, :4].reshape(-1, 3)
    assert np.abs(cell.mean(0) - 0.5).max() < 0.06
    normals = np.float32([[0, 0, 1], [0, 0, -1], [0.6, 0.8, 0]]).repeat(1000, 0)
    ways = hemisphere(normals, np.random.default_rng(0).random((3000, 2)).astype(np.float32))
    np.testing.assert_allclose(np.linalg.norm(ways, axis=1), 1, atol=1e-5)
    cosine = (ways * normals).sum(1)
    assert cosine.min() >= -1e-6
    np.testing.assert_allclose(cosine.reshape(3, -1).mean(1), 2 / 3, atol=0.03)
