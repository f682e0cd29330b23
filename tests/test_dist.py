"""The two wheels of `make dist`, in an environment without a compiler: demo, run and load by the model's name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgemtl
from edgemtl.bundle import models
from edgemtl.bundle.reader import Bundle

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"


@pytest.fixture(scope="module")
def wheels() -> dict[str, Path]:
    """By the distribution's name; made anew by this checkout's Makefile with this Python."""
    if not shutil.which("aarch64-linux-gnu-g++"):
        pytest.skip("no cross-compiler is installed: apt-get install g++-aarch64-linux-gnu")
    place = f"VENV={sys.prefix}"
    path = os.pathsep.join((str(ROOT), str(ROOT / "compiler")))
    command = ["make", "-o", f"{sys.prefix}/.installed", "dist", place]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, check=True, timeout=3000)
    return {path.name.split("-")[0]: path for path in DIST.glob("*.whl")}


@pytest.fixture(scope="module")
def fresh(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment that holds the wheels and what they require."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    command = [folder / "bin" / "pip", "install", "--quiet", f"{wheels['edgemtl']}[cpu]", wheels["edgemtl_models"]]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it would count as installed
    done = subprocess.run(command, env=clean, capture_output=True, text=True, check=False, timeout=1800)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip(f"the package index lacks something: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def said(fresh: Path, folder: Path, *words: object) -> str:
    """What a command says that sees no program but those of the environment."""
    command = [str(fresh / str(words[0])), *map(str, words[1:])]
    environment = {"PATH": str(fresh), "HOME": str(folder)}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_wheels(wheels: dict[str, Path], tmp_path: Path) -> None:
    assert wheels.keys() == {"edgemtl", "edgemtl_models"}
    for path in wheels.values():
        assert path.name.split("-")[1] == edgemtl.__version__
        with zipfile.ZipFile(path) as z:
            assert any(name.endswith("licenses/LICENSE") for name in z.namelist())
    with zipfile.ZipFile(wheels["edgemtl_models"]) as z:
        bundle = z.extract(f"edgemtl_models/{models.DEFAULT}.edgemtl", tmp_path)
    with Bundle.open(bundle, check=True) as opened:
        needs = {p.target: set(p.needs) for p in opened.manifest.programs}
        machines = {p.machine for p in opened.manifest.programs}
    assert machines == {"x86_64", "aarch64"}
    assert any("avx512f" in n for n in needs.values())
    assert any("avx2" in n and "avx512f" not in n for n in needs.values())


@pytest.mark.slow
@pytest.mark.timeout(4000)
def test_first_commands(fresh: Path, tmp_path: Path) -> None:
    assert not [name for name in ("g++", "c++", "clang++", "gcc", "cc") if shutil.which(name, path=str(fresh))]
    out = said(fresh, tmp_path, "edgemtl", "demo")
    assert "measured on this machine, tvm-cpu" in out
    assert (tmp_path / "demo-out" / "demo.mp4").stat().st_size > 100_000
    assert cv2.imread(str(tmp_path / "demo-out" / "sheet.png")).std() > 10
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8))
    for first in ((), (models.DEFAULT,)):
        said(fresh, tmp_path, "edgemtl", "run", *first, photo, "--task", "depth", "-o", "depth.png", "--overwrite")
        assert cv2.imread(str(tmp_path / "depth.png")).shape == (120, 160, 3)
    code = f"import edgemtl; print(edgemtl.load({models.DEFAULT!r}).backend)"
    assert said(fresh, tmp_path, "python", "-c", code).strip() == "tvm-cpu"
    missing = "import importlib.util as u; print([n for n in ('torch', 'onnx', 'edgemtl_models') if u.find_spec(n)])"
    assert said(fresh, tmp_path, "python", "-c", missing).strip() == "['edgemtl_models']"
    assert "member" in said(fresh, tmp_path, "edgemtl", "verify", models.DEFAULT)
