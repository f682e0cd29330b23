"""A board is a folder: one that is copied elsewhere, with figures of its own, is known everywhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import virtual_files

from edgemtl.bundle.reader import Bundle
from edgemtl.bundle.writer import write_bundle
from edgemtl.errors import BoardError
from edgemtl.fpga import bitstream, board, check, program
from edgemtl_compiler.fpga import vitis
from edgemtl_compiler.fpga.image_bundle import FpgaPart, pack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> board.Facts:
    """A board like the ZCU104 but larger, in a folder that edgemtl is told of."""
    folder = tmp_path / "boards" / "mine"
    shutil.copytree(board.OWN / "zcu104", folder)
    path = folder / board.FACTS
    path.write_text(path.read_text().replace('"ZCU104"', '"Mine"').replace("LUT = 230_400", "LUT = 250_000"))
    monkeypatch.setenv(board.VARIABLE, str(tmp_path / "boards"))
    return board.find("mine")


def test_the_folders() -> None:
    assert {"zcu102", "zcu104"} <= set(board.names())
    assert board.find() == board.find(board.DEFAULT)
    for name in board.names():
        facts, folder = board.find(name), ROOT / "bitstreams" / "boards" / name
        assert facts.name == name
        assert (folder / "board.tcl").is_file()
        assert board.folders()[name].resolve() == folder
        for kind in (kind for _, kind in facts.memories):
            assert facts.available(kind) > 0


def test_a_copied_folder_is_a_board(mine: board.Facts, cli: Any, part: FpgaPart, micro: Any, tmp_path: Path) -> None:
    said = cli("estimate", "--preset", "tiny", "--board", "mine", "--json")
    assert {r["name"]: r["available"] for r in json.loads(said.out)["resources"]}["LUT"] == 250_000
    (frames,) = (data for name, data in part.files.items() if name.endswith("golden_frames.bin"))
    images = np.frombuffer(frames, np.uint8).reshape(-1, *part.program.image_size, 3).transpose(0, 3, 1, 2)
    made, path = pack(part.network, images, target="mine"), tmp_path / "m.edgemtl"
    fields = {"name": "m", "model": micro.config, "programs": [part.entry, made.entry]}
    write_bundle(path, manifest_fields=fields, weights=micro.weights, files={**part.files, **made.files})
    with Bundle.open(path) as bundle:
        assert program.described(bundle)[0].target == "zcu104"
        assert program.load(bundle, "mine").banks.tobytes() == part.program.banks.tobytes()
    folder = tmp_path / "out"
    said = cli("deploy", path, "--board", "mine", "-o", folder)
    assert said.code == 0, said.err
    assert json.loads((folder / "model" / "model.json").read_text())["board"] == "mine"
    assert "on a Mine" in (folder / "README.md").read_text()
    bit = virtual_files.write(tmp_path / "bit", mine)
    assert bitstream.open_bitstream(bit, "mine").record.board == "mine"
    with pytest.raises(BoardError, match="is for the board mine; needed is one for zcu104"):
        bitstream.open_bitstream(bit, "zcu104")
    machine = check.Machine(root=tmp_path / "root")
    (tmp_path / "root" / check.NAMED).parent.mkdir(parents=True)
    (tmp_path / "root" / check.NAMED).write_text("Mine\0")
    assert check.check(machine=machine)[0].good
    job = vitis.Job(vitis.UNITS["top"], ROOT / "hls", tmp_path, tmp_path, mine)
    assert f"part={mine.part}" in vitis.config(job)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("LUT = 250_000", "", "does not describe a board: resources.LUT: Field required"),
        ('stream = "URAM288"', 'stream = "DRAM"', "does not describe a board: memories.stream"),
        ("share = 0.75", "share = 7", "does not describe a board: ddr.share"),
        ("[ddr]", "[ddr", "cannot be read"),
        ("title", 'name = "x"\ntitle', "cannot be read"),
        ("title", "deep = " + 5000 * "[" + "\ntitle", "cannot be read"),
    ],
)
def test_a_folder_that_says_too_little(mine: board.Facts, tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "boards" / "mine" / board.FACTS
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BoardError, match=rf"^\S+board.toml: {message}"):
        board.find("mine")


def test_the_cli_says_which_there_are(cli: Any) -> None:
    said = cli("estimate", "--preset", "tiny", "--board", "nowhere")
    assert said.code == 2
    assert f"there is no board 'nowhere'; choose one of {', '.join(board.names())}" in said.err
    said = cli("estimate", "--preset", "tiny", "--board", "zcu102", "--json")
    assert json.loads(said.out)["part"] == board.find("zcu102").part
