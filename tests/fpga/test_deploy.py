"""The folder for a board: its wheel installs, its test passes against the virtual board, and damage is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import virtual_files

import edgemtl
from edgemtl.errors import BoardError, BundleError
from edgemtl.fpga import bitstream, board, board_test, contract, deploy, model_folder, simulation
from edgemtl.fpga.simulation import CSimKernel
from edgemtl_compiler.fpga.image_bundle import FpgaPart


@pytest.fixture
def folder(cli: Callable[..., Any], integer_bundle: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    said = cli("deploy", integer_bundle, "--board", "zcu104", "-o", out)
    assert said.code == 0, said.err
    assert "no bitstream: give --bitstream" in said.out
    return out


def test_what_is_deployed_is_read(folder: Path, part: FpgaPart) -> None:
    facts, program, golden = model_folder.read(folder / "model")
    np.testing.assert_array_equal(program.words, part.program.words)
    np.testing.assert_array_equal(program.banks, part.program.banks)
    for name in ("tasks", "image_size", "map_size", "channels", "units", "task_bytes"):
        assert getattr(program, name) == getattr(part.program, name)
    assert golden.maps["depth"].tobytes() == part.files["programs/fpga/zcu104/golden_depth.bin"]
    for task in facts.tasks:
        assert set(task.estimated_cycles) == {*contract.UNITS} - {"tokens"}
        assert sum(task.estimated_cycles.values()) > 1000


def test_the_wheel(folder: Path, tmp_path: Path) -> None:
    """Its record holds, and what it holds imports; pip itself takes it in test_second_door.py."""
    (wheel,) = folder.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as z:
        z.extractall(site)
        names = z.namelist()
    assert not any("/train/" in n or n.endswith((".safetensors", ".pyc")) for n in names)
    info = site / f"edgemtl-{edgemtl.__version__}.dist-info"
    for line in (info / "RECORD").read_text().splitlines()[:-1]:
        name, digest, size = line.rsplit(",", 2)
        data = (site / name).read_bytes()
        found = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={found}", len(data))
    code = "import edgemtl, edgemtl.fpga.board_test, edgemtl.runtime.backends.fpga as f; print(edgemtl.__file__)"
    code += "; from edgemtl.fpga import board; print(*board.names())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={"PYTHONPATH": str(site)},
    )  # fmt: skip
    assert done.stdout.startswith(str(site)), done.stderr
    assert done.stdout.split("\n")[1] == " ".join(board.names())
    assert "fpga = edgemtl.runtime.backends.fpga:Fpga" in (info / "entry_points.txt").read_text()
    assert f"\nVersion: {edgemtl.__version__}\n" in (info / "METADATA").read_text()
    assert "Root-Is-Purelib: true" in (info / "WHEEL").read_text()
    assert deploy.driver_wheel(tmp_path).read_bytes() == wheel.read_bytes()


def test_board_test_on_the_virtual_board(
    folder: Path, kernel: CSimKernel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As the script in the folder calls it."""
    monkeypatch.setattr(simulation, "CSimKernel", lambda: kernel)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["board_test.py", "--virtual"])
    with pytest.raises(SystemExit) as ended:
        exec(compile((folder / "board_test.py").read_text(), "s", "exec"), {"__name__": "__main__", "__file__": "x"})
    assert ended.value.code == 0
    said = capfd.readouterr().out
    assert "depth: exact; p50 " in said
    assert "power: not measured" in said
    found = json.loads((folder / "board_test.json").read_text())
    assert (found["passed"], found["power"], found["origin"]) == (True, "not measured", "csim")
    assert found["switch_register_bytes"] <= 64 << 10
    depth = found["tasks"]["depth"]
    assert 0 < depth["start_to_done_ms"]["p50"] <= depth["frame_ms"]["p99"]
    assert depth["estimated_cycles"]["origin"] == "model"
    assert depth["cycles"] == {"value": "not measured", "origin": "not measured"}
    linear = depth["counters"]["units"]["linear"]
    assert (linear["cycles"], depth["counters"]["origin"]) == ("not measured", "csim")
    assert depth["ddr_bytes"]["read"] > linear["read_bytes"] > 0
    assert "  calls, steps, bytes: csim; cycles, stalls: not measured; estimate: model\n" in said
    (line,) = {line.split()[4] for line in said.splitlines() if line.startswith("  linear ")}
    assert line == "-"
    golden = folder / "model" / "golden_edge.bin"
    data = bytearray(golden.read_bytes())
    data[0] ^= 1
    golden.write_bytes(data)
    assert board_test.main(str(folder / "board_test.py")) == 1
    found = json.loads((folder / "board_test.json").read_text())
    assert {name for name, task in found["tasks"].items() if not task["exact"]} == {"edge"}
    assert "edge: WRONG" in capfd.readouterr().out


def test_board_test_through_pynq(
    stand_in: Any, integer_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a bitstream in the folder and rails that say 12 W and 3 W. Only a tool's bitstream measures."""
    bit = virtual_files.write(tmp_path / "build")
    bitstream.write_record(bit, board="zcu104", clock_hz=300e6, tool="Vivado 2025.2")
    out = tmp_path / "out"
    assert deploy.make(integer_bundle, out, bit=bit).bitstream
    monkeypatch.delenv("EDGEMTL_BITSTREAM")
    monkeypatch.setattr(board_test, "SAMPLE_S", 0.001)
    rail = lambda watts: types.SimpleNamespace(power=types.SimpleNamespace(value=watts))  # noqa: E731
    stand_in.get_rails = lambda: {"12V": rail(12.0), "INT": rail(3.0), "3V3": rail(1.0)}
    found = board_test.test(out, virtual=False, frames=3)
    assert found["passed"]
    assert (found["origin"], found["board"]) == ("measured", "zcu104")
    assert found["clock_hz"] == pytest.approx(299.997e6)
    assert found["bitstream"]["tool"] == "Vivado 2025.2"
    assert found["tasks"]["depth"]["counters"]["origin"] == "measured"
    assert set(found["power"]) == {"12V", "INT"}
    assert found["power"]["12V"]["mean_w"] == 12
    assert found["tasks"]["semseg"]["frame_ms"]["frames"] == 3
    stand_in.get_rails = dict
    bitstream.write_record(out / "edgemtl.bit", board="zcu104", clock_hz=300e6, tool=bitstream.VIRTUAL)
    found = board_test.test(out, virtual=False, frames=1)
    assert (found["power"], found["origin"]) == ("not measured", "csim")


def test_what_cannot_be_deployed(
    cli: Callable[..., Any], integer_bundle: Path, plain: Path, tmp_path: Path, folder: Path
) -> None:
    for words, message in (
        ((plain, "-o", tmp_path / "a"), "holds nothing for the FPGA board zcu104"),
        ((integer_bundle, "-o", tmp_path / "b", "--board", "kv260"), "kv260"),
        ((integer_bundle, "-o", folder), "is not empty: give a new folder"),
        ((integer_bundle, "-o", tmp_path / "c", "--bitstream", tmp_path / "no.bit"), "cannot read .*no.json"),
    ):
        said = cli("deploy", *words)
        assert (said.code, said.err.count("\n")) == (2, 1), said.err
        assert re.search(message, said.err), said.err
    assert not (tmp_path / "b").exists()


def test_board_test_without_a_bitstream(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.delenv("EDGEMTL_BITSTREAM", raising=False)
    monkeypatch.setattr("sys.argv", ["board_test.py"])
    assert board_test.main(str(folder / "board_test.py")) == 2
    assert f"error: there is no bitstream {folder}/edgemtl.bit" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("weights.bin", lambda d: d[:-64], BundleError, "a file of a wrong size"),
        ("program.bin", lambda d: d[:-4], BundleError, "a file of a wrong size"),
        ("program.bin", lambda d: bytes(4) + d[4:], BundleError, "no descriptor program"),
        ("program.bin", lambda d: b"", BundleError, "a file of a wrong size"),
        ("golden_depth.bin", lambda d: d + d, BundleError, "a file of a wrong size"),
        ("registers.json", lambda d: d.replace(b"140", b"144"), BundleError, "register map version 2, this edgemtl"),
        (
            "model.json",
            lambda d: d.replace(b'"format_version": 2', b'"format_version": 1'),
            BundleError,
            "version 1 and",
        ),
        ("model.json", lambda d: b"{}", BundleError, "does not say what the files are"),
        ("model.json", lambda d: d.replace(b'"depth"', b'"../d"'), BundleError, "does not say what the files are"),
        ("golden_edge.bin", None, BoardError, "cannot read .*golden_edge.bin: No such file"),
    ],
)
def test_damaged_folders(
    folder: Path, name: str, change: Callable[[bytes], bytes] | None, error: type[Exception], message: str
) -> None:
    path = folder / "model" / name
    if change is None:
        path.unlink()
    else:
        before = path.read_bytes()
        path.write_bytes(change(before))
        assert path.read_bytes() != before
    with pytest.raises(error, match=message):
        model_folder.read(folder / "model")
    assert contract.PROGRAM_VERSION == 2
