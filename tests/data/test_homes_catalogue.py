"""Reading furniture catalogues: good ones, broken ones, hostile ones.

The tests of homes make their own tiny catalogue, boxes with the roles that recipes ask for: `write_catalogue`.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgemtl.data.homes import catalogue as reader
from edgemtl.data.homes.catalogue import furniture_files, inside, load_catalogues, read_catalogue, unescape
from edgemtl.data.homes.classes import CLASSES, INDEX, PALETTE
from edgemtl.data.homes.model import KEPT_TRIANGLES, Models
from edgemtl.data.homes.rules import classify, rows
from edgemtl.errors import DataError

BOX = "\n".join(f"v {x} {y} {z}" for x in (0, 1) for y in (0, 1) for z in (0, 1)) + "\nvt 0 0\nvt 1 0\nvt 1 1\n"
SIDES = ("1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4")
FACES = "\n".join("f " + " ".join(f"{c}/{1 + i % 3}" for i, c in enumerate(side.split())) for side in SIDES)
OBJ = "mtllib a.mtl\n" + BOX + "usemtl wood\n" + FACES + "\n"
MTL = "newmtl wood\nKd 0.6 0.4 0.2\nKs 0.2 0.2 0.2\nmap_Kd wood.png\n"

MODELS = (
    # category, name, width, depth, height in cm, more lines
    ("Bedroom", "Bed", 140, 200, 50, "dropOnTopElevation#N=50"),
    ("Bedroom", "Bedside table", 45, 40, 50, ""),
    ("Living room", "Sofa", 180, 80, 80, "dropOnTopElevation#N=80"),
    ("Living room", "Coffee table", 100, 60, 45, ""),
    ("Living room", "Table", 140, 80, 75, ""),
    ("Living room", "Chair", 45, 45, 85, ""),
    ("Living room", "Armchair", 80, 80, 80, ""),
    ("Living room", "Bookcase", 90, 35, 180, ""),
    ("Living room", "Plant", 40, 40, 90, "dropOnTopElevation#N=-1"),
    ("Miscellaneous", "Vase", 15, 15, 30, ""),
    ("Kitchen", "Plate", 20, 20, 3, ""),
    ("Kitchen", "Toaster", 27, 15, 17, ""),
    ("Kitchen", "Fridge", 60, 60, 170, ""),
    ("Office", "Desk", 140, 70, 74, ""),
    ("Office", "Chair", 55, 55, 90, ""),
    ("Office", "Stapler", 4, 12, 4, ""),
    ("Lights", "Little lamp", 25, 25, 45, ""),
    ("Bathroom", "Toilets unit", 40, 65, 77, ""),
    ("Bathroom", "Bath", 170, 70, 60, ""),
    ("Bathroom", "Soap", 10, 6, 5, ""),
    ("Characters", "Female", 50, 40, 168, "tags#N=Human, Woman"),
    ("Exterior", "Palm tree", 400, 400, 900, ""),
)


def texture() -> bytes:
    """A small PNG with a pattern."""
    image = (np.indices((8, 8)).sum(0) % 2 * 120 + 60).astype(np.uint8)
    return bytes(cv2.imencode(".png", cv2.merge([image, image, image]))[1].tobytes())


def entry(number: int, model: tuple[str, str, float, float, float, str], path: str = "/m/box.obj") -> str:
    """The lines of one model in the table."""
    category, name, width, depth, height, more = model
    lines = [
        f"id#N=test#{number}",
        f"name#N={name}",
        f"category#N={category}",
        f"model#N={path}",
        "creator#N=A. Tester",
    ]
    lines += [f"width#N={width}", f"depth#N={depth}", f"height#N={height}", *([more] if more else [])]
    return "\n".join(line.replace("#N=", f"#{number}=") for line in lines)


def write_catalogue(path: Path, table: str | None = None, members: dict[str, bytes] | None = None) -> Path:
    """Write a .sh3f file: all of MODELS, or a table and members of the test's own."""
    head = "id=Test\nlicense=Creative Commons \\u2014 test\n\n"
    text = head + "\n\n".join(entry(i + 1, model) for i, model in enumerate(MODELS)) if table is None else head + table
    files = {"m/box.obj": OBJ.encode(), "m/a.mtl": MTL.encode(), "m/wood.png": texture()} | (members or {})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("PluginFurnitureCatalog.properties", text)
        for name, data in files.items():
            archive.writestr(name, data)
    path.write_bytes(buffer.getvalue())
    return path


CHAIR = ("Living room", "Chair", 50, 60, 90, "")


def one(
    path: Path, model: tuple[str, str, float, float, float, str] = CHAIR, where: str = "/m/box.obj", **members: bytes
) -> Path:
    """A catalogue of one model; members are given as m_NAME_EXT."""
    files = {"m/" + name.removeprefix("m_").replace("_", "."): data for name, data in members.items()}
    return write_catalogue(path / "one.sh3f", entry(1, model, where), files)


def failure(path: Path) -> str:
    """Why the only model of a catalogue cannot be used."""
    models = Models()
    (found,) = read_catalogue(path).entries
    assert models.get(found) is None
    return models.skipped[found.id]


def test_the_classes_are_nyus_forty() -> None:
    assert len(CLASSES) == len(set(CLASSES)) == 40
    assert (CLASSES[0], CLASSES[4], CLASSES[21], CLASSES[39]) == ("wall", "chair", "ceiling", "otherprop")
    assert PALETTE.shape == (40, 3)
    assert len(np.unique(PALETTE, axis=0)) == 40


@pytest.mark.parametrize(
    ("category", "name", "tags", "cls", "role"),
    [
        ("Living room", "Corner sofa", "Couch, Seat", "sofa", "corner sofa"),
        ("Office", "Apple iMac 2004", "Computer, Desktop, PC", "otherprop", "small desk"),
        ("Living room", "TV remote control", "", "otherprop", "small living"),
        ("Bedroom", "Bedside table", "Nightstand", "night stand", "nightstand"),
        ("Bedroom", "Bunk bed", "Kid", "bed", "bed"),
        ("Kitchen", "Glass door cabinet", "Cupboard", "cabinet", "upper"),
        ("Kitchen", "Glass", "", "otherprop", "small dining"),
        ("Vehicles", "Bus", "Car", "otherprop", "-"),
        ("Characters", "Horse", "Animal", "otherprop", "-"),
        ("Nowhere", "Thing", "", "otherprop", "-"),
    ],
)
def test_rules(category: str, name: str, tags: str, cls: str, role: str) -> None:
    assert classify(category, name, tags) == (INDEX[cls], role)


def test_every_rule_names_a_class() -> None:
    assert len(rows()) > 100


def test_a_good_catalogue(tmp_path: Path) -> None:
    found = read_catalogue(write_catalogue(tmp_path / "good.sh3f"))
    assert len(found.entries) == len(MODELS)
    assert found.skipped == []
    bed = found.roles["bed"][0]
    assert bed.size == (1.4, 2.0, 0.5)
    assert bed.top == 0.5
    assert bed.licence == "Creative Commons \u2014 test"
    assert bed.creator == "A. Tester"
    assert found.roles["plant"][0].top == -1
    assert "Palm tree" in [e.name for e in found.roles["-"]]
    assert unescape(r"caf\u00e9 \: x") == "caf\u00e9 : x"


def test_a_model_has_its_size_and_faces_front(tmp_path: Path) -> None:
    (chair,) = read_catalogue(one(tmp_path)).entries
    mesh = Models().get(chair)
    assert mesh is not None
    np.testing.assert_allclose(mesh.size, (0.5, 0.6, 0.9), atol=1e-6)
    flat = mesh.corners.reshape(-1, 3)
    np.testing.assert_allclose(flat.min(0), (-0.25, -0.3, 0), atol=1e-6)
    assert len(mesh.corners) == 12
    (surface,) = mesh.surfaces
    assert surface.texture is not None
    assert surface.texture.levels[0].shape == (8, 8, 3)
    np.testing.assert_allclose(
        mesh.height_at(np.array([[0.0, 0.0], [0.24, 0.29], [0.3, 0.0]])), (0.9, 0.9, -np.inf), atol=1e-6
    )
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=-1), 1, atol=1e-5)


def test_the_catalogues_rotation_comes_first(tmp_path: Path) -> None:
    # the OBJ is tall along x; the rotation takes x to y (up)
    obj = OBJ.replace("v 1", "v 3").encode()
    turned = (*CHAIR[:5], "modelRotation#N=0 -1 0 1 0 0 0 0 1")
    (chair,) = read_catalogue(one(tmp_path, turned, m_box_obj=obj)).entries
    mesh = Models().get(chair)
    assert mesh is not None
    np.testing.assert_allclose(mesh.size, (0.5, 0.6, 0.9), atol=1e-6)


def test_heavy_models_are_simplified(tmp_path: Path) -> None:
    n = 120
    y, x = np.mgrid[0:n, 0:n]
    z = np.sin(x / 9) * np.cos(y / 7)
    points = "\n".join(f"v {a} {c:.4f} {b}" for a, b, c in zip(x.ravel(), y.ravel(), z.ravel(), strict=True))
    i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1) + 1).ravel()
    faces = "\n".join(f"f {a} {a + 1} {a + n + 1} {a + n}" for a in i)
    (chair,) = read_catalogue(one(tmp_path, m_box_obj=(points + "\n" + faces).encode())).entries
    mesh = Models().get(chair)
    assert mesh is not None
    assert 1000 < len(mesh.corners) <= KEPT_TRIANGLES
    np.testing.assert_allclose(mesh.size, (0.5, 0.6, 0.9), atol=0.03)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"m_box_obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\n"}, "has no faces"),
        ({"m_box_obj": OBJ.replace("a.mtl", "gone.mtl").encode()}, "there is no m/gone.mtl"),
        ({"m_a_mtl": b"newmtl wood\nmap_Kd gone.png\n"}, "there is no m/gone.png"),
        ({"m_a_mtl": b"newmtl wood\nmap_Kd ../../etc/passwd\n"}, "leaves the zip"),
        ({"m_a_mtl": b"newmtl wood\nKd red green blue\n"}, "number that cannot be read"),
        ({"m_wood_png": b"no picture"}, "no picture that can be read"),
        ({"m_box_obj": OBJ.replace("v 1 1 1", "v 1 1 nan").encode()}, "not finite"),
        ({"m_box_obj": OBJ.replace("v 1 1 1", "v 1 1 1e300").encode()}, "absurdly large"),
        ({"m_box_obj": OBJ.replace("v 1 1 1", "v 1 1").encode()}, "no OBJ file"),
        ({"m_box_obj": OBJ.replace("8/", "99/").encode()}, "a point that is not there"),
        ({"m_box_obj": b"f 1 x 3\n"}, "no OBJ file"),
        ({"m_box_obj": b"\x00\xff" * 50}, "has no faces"),
    ],
)
def test_bad_models_are_left_out_with_a_reason(tmp_path: Path, members: dict[str, bytes], reason: str) -> None:
    assert reason in failure(one(tmp_path, **members))


def test_a_material_that_no_face_uses_may_be_broken(tmp_path: Path) -> None:
    mtl = (MTL + "newmtl unused\nmap_Kd gone.png\n").encode()
    (chair,) = read_catalogue(one(tmp_path, m_a_mtl=mtl)).entries
    assert Models().get(chair) is not None


@pytest.mark.parametrize("where", ["../../evil.obj", "/../evil.obj", "C:/evil.obj", "..\\evil.obj", ""])
def test_paths_that_leave_the_zip_are_left_out(tmp_path: Path, where: str) -> None:
    found = read_catalogue(one(tmp_path, where=where))
    assert found.entries == []
    assert "leaves the zip" in found.skipped[0]
    assert inside("a/../b.obj") == "b.obj"


@pytest.mark.parametrize("number", ["nan", "inf", "-5", "0", "1e9", "wide", ""])
def test_absurd_sizes_are_left_out(tmp_path: Path, number: str) -> None:
    table = entry(1, CHAIR).replace("width#1=50", f"width#1={number}")
    found = read_catalogue(write_catalogue(tmp_path / "a.sh3f", table))
    assert found.entries == []
    assert len(found.skipped) == 1


@pytest.mark.parametrize("turn", ["1 0 0", "0 0 0 0 0 0 0 0 0", "nan 0 0 0 1 0 0 0 1", "9 0 0 0 9 0 0 0 9", "a b c"])
def test_rotations_that_are_none(tmp_path: Path, turn: str) -> None:
    found = read_catalogue(one(tmp_path, (*CHAIR[:5], f"modelRotation#N={turn}")))
    assert found.entries == []


def test_zip_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = one(tmp_path, m_box_obj=OBJ.encode() + b" " * 3_000_000)
    monkeypatch.setattr("edgemtl.data.homes.model.MAX_MODEL", 1_000_000)
    assert "more than 1000000" in failure(bomb)
    monkeypatch.setattr(reader, "MAX_CATALOGUE", 2_000_000)
    with pytest.raises(DataError, match="unpacks to"):
        read_catalogue(bomb)


def test_pictures_of_absurd_size_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemtl.data.homes.mtl.MAX_PIXELS", 60)
    assert "8x8 pixels" in failure(one(tmp_path))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\x00" * 60])
def test_a_file_that_is_no_catalogue(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.sh3f").write_bytes(content)
    with pytest.raises(DataError, match="is no furniture catalogue"):
        read_catalogue(tmp_path / "bad.sh3f")


def test_a_zip_without_a_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.sh3f", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(DataError, match="is no furniture catalogue"):
        read_catalogue(tmp_path / "other.sh3f")


def test_damaged_bytes_in_the_middle(tmp_path: Path) -> None:
    path = one(tmp_path, m_box_obj=OBJ.encode() + b"# pad\n" * 2000)
    data = bytearray(path.read_bytes())
    at = data.index(b"m/box.obj") + 30
    data[at : at + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    assert failure(path)


def test_where_furniture_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "INSTALLED", str(tmp_path / "*.sh3f"))
    with pytest.raises(DataError, match="apt-get install sweethome3d-furniture"):
        furniture_files()
    path = write_catalogue(tmp_path / "b.sh3f")
    assert furniture_files() == [path]
    with pytest.raises(DataError, match="there is no furniture file"):
        furniture_files([tmp_path / "gone.sh3f"])


def test_a_catalogue_with_nothing_for_a_home(tmp_path: Path) -> None:
    path = one(tmp_path, ("Vehicles", "Bus", 250, 999, 300, ""))
    with pytest.raises(DataError, match="no model that fits a home"):
        load_catalogues((str(path),))
