"""Programs for aarch64: built here, and run under emulation by the whole backend suite.

The kernels alone are covered by test_kernels.py and its like, which emulate them too (emulated.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import aarch64_python
import emulated
import given
import numpy as np
import pytest
import torch
from small_rooms import write_rooms

from edgemtl.bundle.reader import Bundle
from edgemtl.model import MultiTaskViT, preset
from edgemtl_compiler import compile_bundle
from edgemtl_compiler.cpu.targets import A53, A76, Target

ROOT = Path(__file__).parents[2]
FRAMES = list(np.random.default_rng(5).integers(0, 256, (2, 40, 70, 3), np.uint8))


def build(micro: Any, path: Path, *wanted: Target, **options: Any) -> Path:
    if reason := emulated.missing(A53):
        pytest.skip(reason)
    names = [t.name for t in wanted]
    built = compile_bundle(micro.model, path, targets=names, golden_images=FRAMES, **options)
    assert built.errors == {name: {} for name in names}  # nothing is claimed that was not run
    return path


def test_the_programs_are_for_that_machine(micro: Any, tmp_path: Path) -> None:
    path = build(micro, tmp_path / "micro.edgemtl", A53, tasks=["depth"])
    with Bundle.open(path) as bundle:
        (program,) = bundle.manifest.programs
        assert (program.target, program.machine, program.needs) == (A53.name, "aarch64", A53.needs)
        assert program.built_with["c++"].startswith("aarch64-linux-gnu-g++ ")
        for member in program.members.values():
            header = bytes(bundle.read(member)[:20])
            assert header[:6] == b"\x7fELF\x02\x01"
            assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64


@pytest.fixture(scope="module")
def foreign(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro bundle for A53 and A76."""
    return build(micro, tmp_path_factory.mktemp("aarch64") / "micro.edgemtl", A53, A76)


@pytest.fixture(scope="module")
def python() -> Path:
    try:
        return aarch64_python.python()
    except aarch64_python.MissingError as e:
        pytest.skip(str(e))


def run(python: Path, core: str, *args: str, **variables: str) -> str:
    environment = {**os.environ, "EDGEMTL_TEST_CPU": core, **variables}
    command = [str(python), *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=1500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1600)
@pytest.mark.parametrize(("core", "target"), [("cortex-a53", A53), ("cortex-a76", A76)], ids=["a53", "a76"])
def test_the_backend_suite(python: Path, foreign: Path, micro: Any, tmp_path: Path, core: str, target: Any) -> None:
    """tests/suite as it is, on an emulated core, with nothing installed but what a device has."""
    given.write(tmp_path, micro, foreign)
    ask = "import edgemtl, sys; print(edgemtl.load(sys.argv[1]).program.target)"
    assert run(python, core, "-c", ask, str(foreign)) == f"{target.name}\n"
    said = run(
        python, core, "-m", "pytest", "tests/suite/test_every_backend.py", "-q", "-k", "tvm-cpu", "-p",
        "no:cacheprovider",
        f"--basetemp={tmp_path / 'pytest'}", "--timeout=600", **{given.VARIABLE: str(tmp_path)},
    )  # fmt: skip
    summary = said.strip().splitlines()[-1]
    assert " passed" in summary
    assert "failed" not in summary
    assert "skipped" not in summary, said
    assert int(summary.split(" passed")[0].split()[-1]) > 30


ROUTE = """
import sys, edgemtl, numpy as np
from edgemtl.runtime.expert_map import trace
out = {}
with edgemtl.load(sys.argv[1], "tvm-cpu", threads=2) as engine:
    engine.activate(*engine.tasks)
    for seed in range(5):
        frame = np.random.default_rng(seed).integers(0, 256, (*engine.manifest.model.image_size, 3), np.uint8)
        given, maps = trace(engine, frame)
        for task, chosen in maps.items():
            out[f"{task}/{seed}/experts"], out[f"{task}/{seed}/raw"] = chosen.experts, given[task].raw
np.savez(sys.argv[2], **out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-a53", "cortex-a76"])
def test_every_token_chooses_the_same_experts(
    python: Path, foreign: Path, bundle: Path, tmp_path: Path, core: str
) -> None:
    """Whole frames on aarch64 and here: routings equal, maps within the rounding of another order of sums."""
    run(python, core, "-c", ROUTE, str(foreign), str(tmp_path / "there.npz"))
    subprocess.run([sys.executable, "-c", ROUTE, str(bundle), str(tmp_path / "here.npz")], check=True, timeout=300)
    with np.load(tmp_path / "there.npz") as there, np.load(tmp_path / "here.npz") as here:
        assert set(there) == set(here)
        assert len({name.split("/")[0] for name in here}) == 4
        for name in here:
            if name.endswith("/experts"):
                np.testing.assert_array_equal(there[name], here[name])
                assert here[name].min() >= 0
            else:
                assert np.abs(there[name] - here[name]).max() <= 2e-5 * np.abs(here[name]).max()


def verify(python: Path, core: str, path: Path) -> dict[str, float]:
    """`edgemtl verify` as a user of the device types it: task -> relative error."""
    report = json.loads(run(python, core, "-m", "edgemtl.cli.main", "verify", str(path), "--json"))
    errors: dict[str, float] = report["backends"]["tvm-cpu"]
    assert max(errors.values()) <= report["tolerance"]
    return errors


@pytest.mark.slow
@pytest.mark.parametrize(("core", "target"), [("cortex-a53", A53), ("cortex-a76", A76)], ids=["a53", "a76"])
def test_the_hybrid(python: Path, tmp_path: Path, core: str, target: Target) -> None:
    """What TVM compiles itself runs there as well."""
    shape = {"image_size": (32, 48), "dim": 32, "heads": 2, "depth": 2, "moe": (1,), "head_dim": 16, "rays": True}
    torch.manual_seed(5)
    model = MultiTaskViT(preset("hybrid", **shape, experts=6, top_k=2, tasks="rooms")).eval()
    compile_bundle(model, tmp_path / "hybrid.edgemtl", targets=[target.name], tasks=["normals"], golden_images=FRAMES)
    assert max(verify(python, core, tmp_path / "hybrid.edgemtl").values()) < 1e-5


@pytest.mark.slow
def test_verify_and_doctor(python: Path, foreign: Path) -> None:
    assert set(verify(python, "cortex-a53", foreign)) == {"semseg", "depth", "normals", "edge"}
    report = json.loads(run(python, "cortex-a76", "-m", "edgemtl.cli.main", "doctor", "--json"))
    assert report["machine"] == "aarch64"
    assert {"asimd", "asimddp"} <= set(report["cpu_features"])
    assert report["tvm_runtime"]["package"] == "edgemtl-tvm-runtime"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f16", "int8"])
def test_other_precisions(python: Path, micro: Any, tmp_path: Path, precision: str) -> None:
    options: dict[str, Any] = {"precision": precision}
    if precision == "int8":
        options |= {"calibrate": write_rooms(tmp_path / "rooms"), "images": 32, "evaluate": 2}
    path = build(micro, tmp_path / "micro.edgemtl", A53, A76, tasks=["depth", "edge"], **options)
    for core in ("cortex-a53", "cortex-a76"):
        assert set(verify(python, core, path)) == {"depth", "edge"}
