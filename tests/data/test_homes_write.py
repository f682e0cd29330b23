"""Writing a set of homes: same seed same bytes, going on, splits, records of views, credits, the command."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_homes_catalogue import CHAIR, OBJ, entry, write_catalogue
from typer.testing import CliRunner

from edgemtl.cli.data import app
from edgemtl.data.dataset import NyudMT
from edgemtl.data.homes import write
from edgemtl.data.homes.classes import CLASSES
from edgemtl.data.homes.write import VIEWS_PER_HOME, HomeSet
from edgemtl.data.rooms.write import generate
from edgemtl.errors import ConfigError, DataError

RUN = CliRunner()
COUNT = 2 * VIEWS_PER_HOME + 2


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def furniture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_catalogue(tmp_path_factory.mktemp("furniture") / "tiny.sh3f")


@pytest.fixture(scope="module")
def job(furniture: Path) -> HomeSet:
    return HomeSet(4, COUNT, 36, 48, 0.4, (str(furniture),))


@pytest.fixture(scope="module")
def whole(job: HomeSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("homes") / "set"
    assert generate(job, out) == {"train": VIEWS_PER_HOME + 2, "val": VIEWS_PER_HOME}
    return out


def test_layout(whole: Path) -> None:
    names = {f"{i:06d}" for i in range(COUNT)}
    for folder, end in HomeSet.files.items():
        assert {p.name for p in (whole / folder).iterdir()} == {n + end for n in names}
    semseg = cv2.imread(str(whole / "segmentation/000003.png"), cv2.IMREAD_UNCHANGED)
    assert semseg.dtype == np.uint8
    assert 1 <= semseg.min() <= semseg.max() <= 40
    for folder, dtype, shape in (
        ("depth", np.float16, (36, 48)),
        ("normals", np.float16, (36, 48, 3)),
        ("edge", np.uint8, (36, 48)),
    ):
        array = np.load(whole / folder / "000003.npy", allow_pickle=False)
        assert (array.dtype, array.shape) == (dtype, shape)
    split = {s: (whole / "gt_sets" / f"{s}.txt").read_text().split() for s in ("train", "val")}
    homes = {s: {int(i) // VIEWS_PER_HOME for i in ids} for s, ids in split.items()}
    assert not homes["train"] & homes["val"]
    assert set(split["train"]) | set(split["val"]) == names


def test_the_records_of_views(whole: Path) -> None:
    for path in sorted((whole / "views").iterdir()):
        view = json.loads(path.read_text())
        assert 45 <= view["fov"] <= 80
        assert view["renderer"] == "rays"
        assert view["home"] == int(path.stem) // VIEWS_PER_HOME
        semseg = cv2.imread(str(whole / "segmentation" / f"{path.stem}.png"), cv2.IMREAD_UNCHANGED)
        for box in view["boxes"]:
            x0, y0, x1, y1 = box["box"]
            assert 0 <= x0 < x1 <= 48
            assert 0 <= y0 < y1 <= 36
            assert 0 < box["visible"] <= 1
            assert CLASSES.index(box["class"]) + 1 in semseg[y0:y1, x0:x1]


def test_the_training_code_reads_it(whole: Path) -> None:
    data = NyudMT(whole, "train", {"semseg": "semseg", "depth": "depth", "normals": "normals", "edge": "edge"})
    assert len(data) == VIEWS_PER_HOME + 2


def test_credits_name_authors_and_licences(whole: Path) -> None:
    credits_ = json.loads((whole / "credits.json").read_text())
    used = {m for p in (whole / "views").iterdir() for m in json.loads(p.read_text())["models"]}
    assert {row["model"] for row in credits_["models"]} == used
    assert used
    for row in credits_["models"]:
        assert row["creator"] == "A. Tester"
        assert row["licence"].startswith("Creative Commons")
        assert row["images"] > 0


def test_the_note_tells_what_was_asked(whole: Path, job: HomeSet) -> None:
    note = json.loads((whole / "homes.json").read_text())
    assert note == job.describe()
    assert note["classes"] == list(CLASSES)
    assert note["furniture"][0]["file"] == "tiny.sh3f"
    assert len(note["furniture"][0]["sha256"]) == 64


def test_two_workers_write_the_same_bytes(whole: Path, job: HomeSet, tmp_path: Path) -> None:
    generate(job, tmp_path / "set", workers=2)
    assert contents(tmp_path / "set") == contents(whole)


def test_interrupted_and_resumed_equals_uninterrupted(whole: Path, job: HomeSet, tmp_path: Path) -> None:
    out = tmp_path / "set"

    def stop(images: int) -> None:
        if images:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(job, out, report=stop)
    assert len((out / "gt_sets/train.txt").read_text().split()) == VIEWS_PER_HOME
    assert (out / "credits.json").exists()
    (out / "views/000001.json").unlink()
    (out / "depth/.000002.npy.99.tmp").write_bytes(b"half")
    generate(job, out)
    assert contents(out) == contents(whole)


def test_an_image_depends_on_its_number_only(whole: Path, job: HomeSet) -> None:
    for image in (VIEWS_PER_HOME + 3, 1):
        for folder, data in job.encode(image).items():
            assert (whole / folder / f"{image:06d}{HomeSet.files[folder]}").read_bytes() == data


def test_other_furniture_is_another_set(whole: Path, job: HomeSet, tmp_path: Path) -> None:
    other = write_catalogue(tmp_path / "tiny.sh3f", entry(1, CHAIR))
    with pytest.raises(DataError, match=r"holds other homes \(furniture is"):
        generate(HomeSet(4, COUNT, 36, 48, 0.4, (str(other),)), whole)


def test_bad_settings(job: HomeSet) -> None:
    for changes, words in (
        ({"cycles_share": 1.5}, "cycles share is 1.5"),
        ({"furniture": ()}, "needs furniture"),
        ({"height": 8}, "each side must be"),
        ({"val_share": -1}, "val share"),
    ):
        with pytest.raises(ConfigError, match=words):
            write.replace(job, **changes)  # type: ignore[arg-type]


def test_the_command(furniture: Path, tmp_path: Path) -> None:
    files = {"m/box.obj": OBJ.replace("a.mtl", "no.mtl").encode()}
    broken = write_catalogue(tmp_path / "broken.sh3f", members=files)
    arguments = ["homes", str(tmp_path / "set"), "--count", "3", "--size", "24x32", "--workers", "1"]
    both = ["--furniture", str(furniture), "--furniture", str(broken)]
    done = RUN.invoke(app, [*arguments, *both])
    assert done.exit_code == 0, done.output
    assert "3 train and 0 val images" in done.output
    assert "there is no m/no.mtl" in done.output
    assert "models could not be used" in done.output
    assert RUN.invoke(app, ["check", str(tmp_path / "set"), "--split", "train"]).exit_code == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--furniture", "gone.sh3f"], "there is no furniture file gone.sh3f"),
        (["--size", "24"], "not of the form HxW"),
        (["--count", "0"], "number of images is 0"),
        (["--workers", "0"], "number of workers is 0"),
        (["--cycles-share", "2"], "cycles share is 2"),
    ],
)
def test_bad_input_is_one_sentence(more: list[str], words: str, furniture: Path, tmp_path: Path) -> None:
    given = [] if "--furniture" in more else ["--furniture", str(furniture)]
    done = RUN.invoke(app, ["homes", str(tmp_path / "set"), "--count", "2", *given, *more])
    assert isinstance(done.exception, ConfigError | DataError)
    assert words in str(done.exception)
    assert not (tmp_path / "set").exists()


def test_without_furniture_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemtl.data.homes.catalogue.INSTALLED", str(tmp_path / "*.sh3f"))
    done = RUN.invoke(app, ["homes", str(tmp_path / "set")])
    assert "apt-get install sweethome3d-furniture" in str(done.exception)


def test_the_share_of_homes_that_blender_photographs(job: HomeSet) -> None:
    shared = write.replace(job, cycles_share=0.25)
    names = [shared.renderer_of(home) for home in range(400)]
    assert names.count("cycles") == 100
    assert {job.renderer_of(home) for home in range(400)} == {"rays"}


WITHOUT = importlib.util.find_spec("bpy") is None


@pytest.mark.skipif(not WITHOUT, reason="bpy is installed here")
def test_without_blender_one_sentence_says_what_to_install(job: HomeSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pip install 'edgemtl\[blender\]'"):
        generate(write.replace(job, cycles_share=1.0), tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.skipif(WITHOUT, reason="bpy is not installed: pip install 'edgemtl[blender]'")
def test_cycles_shows_the_same_home(job: HomeSet) -> None:
    """Labels are equal; the picture is another one of the same view."""
    ours, _ = write.make_view(job, 0)
    theirs, note = write.make_view(write.replace(job, cycles_share=1.0), 0)
    assert note["renderer"] == "cycles"
    for name in ("semseg", "depth", "normals", "edge"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    a, b = (v.rgb.astype(float).mean(-1) for v in (ours, theirs))
    assert np.abs(a - b).mean() > 2
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.4
