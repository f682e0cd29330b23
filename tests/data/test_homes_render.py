"""Labels of homes are exact, light does what it should, furniture stands where furniture can stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_homes_catalogue import write_catalogue

from edgemtl.data.homes.build import Builder
from edgemtl.data.homes.catalogue import Catalogue, load_catalogues
from edgemtl.data.homes.classes import CLASSES, INDEX
from edgemtl.data.homes.home import KINDS, RECIPES, Home, build_home
from edgemtl.data.homes.light import Light, Lights, spread
from edgemtl.data.homes.mesh import Maker, Mesh, Surface, Texture
from edgemtl.data.homes.model import Models
from edgemtl.data.homes.patterns import _KINDS, pattern
from edgemtl.data.homes.place import Gap, Room
from edgemtl.data.homes.render import View, render
from edgemtl.data.homes.trace import Item, World
from edgemtl.data.homes.view import Eye, choose, fallback
from edgemtl.data.rooms.scene import move, turn

SIZE = (48, 64)
LAMP = [Light((0.0, -2.0, 2.0), (6.0, 6.0, 6.0))]


def box(low: tuple[float, float, float], high: tuple[float, float, float], **surface: object) -> Mesh:
    maker = Maker()
    maker.box(low, high, Surface(**surface))  # type: ignore[arg-type]
    return maker.mesh()


def scene(*more: Item) -> World:
    """A wall at y = 2, a floor at z = 0, and more."""
    wall, floor = Maker(), Maker()
    wall.quad((-9, 2, -9), (9, 2, -9), (9, 2, 9), (-9, 2, 9), Surface((0.6, 0.6, 0.6)))
    floor.quad((-9, -9, 0), (9, -9, 0), (9, 9, 0), (-9, 9, 0), Surface((0.6, 0.3, 0.3)))
    base = [Item(wall.mesh(), np.eye(4), INDEX["wall"], 1), Item(floor.mesh(), np.eye(4), INDEX["floor"], 2)]
    return World([*base, *more])


def look(world: World, camera: Eye | None = None, lights: list[Light] | None = None) -> View:
    eye = camera or Eye((0, -1, 1), (0, 0, 1), 60.0)
    return render(world, LAMP if lights is None else lights, eye, SIZE, np.random.default_rng(0))


def test_depth_and_normals_of_a_wall_are_exact() -> None:
    view = look(scene())
    wall = view.semseg == INDEX["wall"]
    assert wall.any()
    assert (view.semseg == INDEX["floor"]).any()
    np.testing.assert_allclose(view.depth[wall], 3, atol=1e-4)
    np.testing.assert_allclose(view.normals[wall], np.broadcast_to((0, 0, 1), (wall.sum(), 3)), atol=1e-5)
    floor = view.normals[view.semseg == INDEX["floor"]]
    np.testing.assert_allclose(floor, np.broadcast_to((0, 1, 0), floor.shape), atol=1e-5)


def test_a_rolled_camera_turns_normals_and_not_depth() -> None:
    view = look(scene(), Eye((0, -1, 1), (0, 0, 1), 60.0, roll=0.1))
    wall = view.semseg == INDEX["wall"]
    np.testing.assert_allclose(view.depth[wall], 3, atol=1e-4)
    floor = view.normals[view.semseg == INDEX["floor"]]
    np.testing.assert_allclose(floor, np.broadcast_to((np.sin(0.1), np.cos(0.1), 0), floor.shape), atol=1e-4)


def test_edges_follow_instances_and_not_texture() -> None:
    check = Texture.of((np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2))
    item = Item(box((-0.3, 0.5, 0.6), (0.3, 1.0, 1.4), texture=check, colour=(1, 1, 1)), np.eye(4), INDEX["box"], 3)
    view = look(scene(item))
    inside = view.instance == 3
    core = inside.copy()
    core[1:] &= inside[:-1]
    core[:-1] &= inside[1:]
    core[:, 1:] &= inside[:, :-1]
    core[:, :-1] &= inside[:, 1:]
    assert view.edge[core].sum() == 0
    assert view.edge.sum() > 0.5 * (inside & ~core).sum()
    assert view.rgb[core].std() > 20  # the texture is there


def test_boxes_bound_what_is_visible_and_tell_which_share_it_is() -> None:
    rear = Item(box((-0.4, 1.0, 0.6), (0.4, 1.2, 1.4)), np.eye(4), INDEX["sofa"], 3)
    front = Item(box((0.0, 0.2, 0.55), (0.5, 0.3, 1.45)), np.eye(4), INDEX["chair"], 4)
    alone = {str(b["class"]): b for b in look(scene(rear)).boxes}
    both_view = look(scene(rear, front))
    both = {str(b["class"]): b for b in both_view.boxes}
    assert set(both) == {"sofa", "chair"}
    assert alone["sofa"]["visible"] == 1
    assert 0.3 < float(str(both["sofa"]["visible"])) < 0.7
    assert both["chair"]["visible"] == 1
    x0, y0, x1, y1 = both["sofa"]["box"]  # type: ignore[misc]
    rows, columns = np.nonzero(both_view.instance == 3)
    assert (x0, y0, x1, y1) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    outside = Item(box((-9, 1.0, 0.6), (0.0, 1.2, 1.4)), np.eye(4), INDEX["sofa"], 3)
    (cut,) = look(scene(outside)).boxes
    assert float(str(cut["visible"])) < 0.5


def test_holes_in_textures_are_seen_through() -> None:
    leaf = Texture.of(np.full((8, 8, 3), 200, np.uint8), np.zeros((8, 8), np.uint8))
    view = look(scene(Item(box((-0.3, 0.5, 0.6), (0.3, 1.0, 1.4), texture=leaf), np.eye(4), INDEX["box"], 3)))
    assert not (view.instance == 3).any()
    np.testing.assert_allclose(view.depth[20, 32], 3, atol=1e-3)


def test_a_mirror_shows_what_is_before_it() -> None:
    glass = Item(
        box((-0.4, 1.9, 0.7), (0.4, 1.95, 1.5), mirror=True, colour=(0.9, 0.9, 0.9)), np.eye(4), INDEX["mirror"], 3
    )
    red = Item(box((-3, -2.2, 0.01), (3, -2.1, 2), colour=(0.8, 0.02, 0.02)), np.eye(4), INDEX["box"], 4)
    view = look(scene(glass, red))
    mirror = view.rgb[view.instance == 3].astype(float).mean(0)
    assert mirror[0] > 1.5 * mirror[2]


def test_shadows_darken_and_lamps_brighten() -> None:
    lamps = Lights(LAMP)
    at = np.array([[0, 2, 1], [0, 2, 1]], np.float32)
    normal = np.array([[0, -1, 0], [0, 1, 0]], np.float32)
    arriving = lamps.arriving(at, normal)
    assert arriving[0, 0] > 0
    assert arriving[1, 0] == 0
    blocker = Item(box((-1, 0, -1), (1, 0.1, 3)), np.eye(4), INDEX["box"], 3)
    draws = np.full((1, 4, 3), 0.5, np.float32)
    share = [lamps.reach(scene(*more), at[:1], normal[:1], arriving[:1], draws)[0] for more in ((), (blocker,))]
    assert share == [1, 0]


def test_spreading_light_keeps_to_surfaces() -> None:
    size = (8, 8)
    instance = np.zeros(size, np.int64)
    instance[:, 4:] = 1
    normal = np.zeros((*size, 3), np.float32)
    normal[..., 2] = 1
    point = np.stack([*np.meshgrid(np.arange(8) * 0.1, np.arange(8) * 0.1), np.zeros(size)], -1).astype(np.float32)
    value = np.repeat((instance[::2, ::2] * 1.0).astype(np.float32)[..., None], 2, -1)
    out = spread(value, (instance[::2, ::2], normal[::2, ::2], point[::2, ::2]), (instance, normal, point), size)
    assert out.shape == (8, 8, 2)
    np.testing.assert_allclose(out[..., 0], instance, atol=0.05)


def test_a_world_without_light_gives_a_picture() -> None:
    view = look(scene(), lights=[])
    assert view.rgb.dtype == np.uint8
    assert np.isfinite(view.depth).all()


@pytest.mark.parametrize("kind", list(_KINDS))
def test_patterns(kind: str) -> None:
    first, second = pattern(kind, 0), pattern(kind, 1)
    assert first.levels[0].shape == (256, 256, 3)
    assert first.levels[-1].shape[0] <= 4
    assert not np.array_equal(first.levels[0], second.levels[0])
    pattern.cache_clear()
    np.testing.assert_array_equal(pattern(kind, 0).levels[0], first.levels[0])


def test_walls_face_inward_and_know_their_gaps() -> None:
    room = Room("living", 0, 0, 4, 3, 2.5)
    middle = np.array([2, 1.5])
    for wall in room.walls:
        assert (middle - wall.point(wall.length / 2)) @ wall.inward > 0
        front = turn(wall.angle)[:2, :2] @ [0, -1]
        np.testing.assert_allclose(front, wall.inward, atol=1e-9)
    room.walls[0].gaps.append(Gap("window", 1, 2, 0.9, 2))
    assert room.walls[0].free(0.5, 2.5, 0, 0.8)
    assert not room.walls[0].free(0.5, 2.5, 0, 1.5)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return load_catalogues((str(write_catalogue(tmp_path_factory.mktemp("f") / "tiny.sh3f")),))


@pytest.fixture(scope="module")
def homes(catalogue: Catalogue) -> list[Home]:
    models = Models()
    return [build_home(np.random.default_rng(seed), catalogue, models) for seed in range(16)]


def test_homes_have_all_kinds_of_rooms_and_furniture_in_them(homes: list[Home]) -> None:
    assert set(KINDS) == set(RECIPES)
    seen = {CLASSES[item.cls] for home in homes for item in home.items}
    assert {"wall", "floor", "ceiling", "window", "door", "bed", "sofa", "chair", "table", "books", "picture"} <= seen
    for home in homes:
        low = min(r.x0 for r in home.rooms), min(r.y0 for r in home.rooms)
        high = max(r.x1 for r in home.rooms), max(r.y1 for r in home.rooms)
        for f in home.footprints:
            corners = f.corners()
            assert (corners >= np.subtract(low, 0.3)).all()
            assert (corners <= np.add(high, 0.3)).all()


def test_furniture_does_not_overlap(homes: list[Home]) -> None:
    """But for chairs, whose seats go a little under their table."""
    for home in homes:
        solid = [f for f in home.footprints if f.solid and min(f.half_x, f.half_y) > 0.3]
        shrunk = [type(f)(f.x, f.y, f.half_x - 0.2, f.half_y - 0.2, f.angle) for f in solid]
        for i, a in enumerate(shrunk):
            assert not any(a.overlaps(b) for b in shrunk[:i])


def test_small_things_stand_on_something(homes: list[Home]) -> None:
    """Under each thing that is above the floor and not on a wall there is a surface within 2 cm."""
    checked = 0
    for home in homes[:6]:
        world = World(home.items)
        for item in home.items:
            base = float(item.matrix[2, 3])
            if item.model and 0.2 < base < 1.3 and item.mesh.size.max() < 0.4 and item.cls == INDEX["otherprop"]:
                start = np.array([[item.matrix[0, 3], item.matrix[1, 3], base - 0.0005]], np.float32)
                found = world.cast(start, np.array([[0, 0, -1]], np.float32))
                assert found.distance[0] < 0.03, (item.model, base)
                checked += 1
    assert checked > 5


def test_same_seed_same_home(catalogue: Catalogue) -> None:
    first, second = (build_home(np.random.default_rng(5), catalogue, Models()) for _ in range(2))
    assert len(first.items) == len(second.items)
    for a, b in zip(first.items, second.items, strict=True):
        np.testing.assert_array_equal(a.matrix, b.matrix)
        np.testing.assert_array_equal(a.mesh.corners, b.mesh.corners)
        assert (a.cls, a.instance, a.tint) == (b.cls, b.instance, b.tint)


def test_views_are_inside_rooms_and_see_something(homes: list[Home]) -> None:
    found = 0
    for home in homes[:6]:
        world = World(home.items)
        for k in range(2):
            rng = np.random.default_rng(k)
            camera = choose(home, world, 0, rng) or fallback(home, world)
            room = home.rooms[camera.room]
            assert room.x0 < camera.eye[0] < room.x1
            assert room.y0 < camera.eye[1] < room.y1
            assert 0.3 <= camera.eye[2] <= 1.8
            assert 45 <= camera.fov <= 80
            view = render(world, home.lights, camera, SIZE, rng)
            assert np.isfinite(view.depth).all()
            assert view.depth.min() > 0.05
            assert view.depth.max() < 15
            np.testing.assert_allclose(np.linalg.norm(view.normals, axis=-1), 1, atol=1e-3)
            found += len(np.unique(view.semseg))
            assert 3 < view.rgb.mean() < 253
    assert found / 12 > 4


def test_a_catalogue_of_one_thing_still_makes_homes(tmp_path: Path) -> None:
    from test_homes_catalogue import CHAIR, entry

    lonely = load_catalogues((str(write_catalogue(tmp_path / "one.sh3f", entry(1, CHAIR))),))
    for seed in range(4):
        home = build_home(np.random.default_rng(seed), lonely, Models())
        assert fallback(home, World(home.items)).fov == 60


def test_things_are_put_on_level_ground_only(catalogue: Catalogue) -> None:
    b = Builder(np.random.default_rng(0), catalogue, Models())
    found = b.model("coffee")
    assert found is not None
    table = b.stand(found, 1.0, 2.0, 0.3)
    assert b.surface_at(table, 0.0, 0.0, 0.1) == pytest.approx(0.45, abs=1e-6)
    assert b.surface_at(table, 0.5, 0.0, 0.1) is None
    vase = b.model("small living")
    assert vase is not None
    placed = b.put(table, vase)
    assert placed is not None
    assert placed.z == pytest.approx(0.451, abs=1e-6)
    np.testing.assert_allclose(table.world(0.0, 0.0), (1.0, 2.0))
    assert move(1, 2, 3)[2, 3] == 3
