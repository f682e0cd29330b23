"""A .bit, .hwh and .json of other builds, versions, kernels or boards are refused by name, before pynq sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import virtual_files

from edgemtl.errors import BoardError
from edgemtl.fpga import bitstream, board, handoff, registers


@pytest.fixture
def bit(tmp_path: Path) -> Path:
    return virtual_files.write(tmp_path / "build")


def test_files_of_one_build(bit: Path) -> None:
    found = bitstream.open_bitstream(bit)
    assert (found.handoff.base, found.handoff.span) == (0xA000_0000, registers.SPAN)
    assert found.handoff.clock_hz == found.record.clock_hz == 300e6
    assert found.handoff.offsets["task"] == registers.REGISTERS["task"].offset
    assert found.handoff.offsets["w0_2"] == registers.REGISTERS["w0"].offset + 4
    assert bitstream.describe(found)["board"] == "zcu104"


@pytest.mark.parametrize("suffix", [".bit", ".hwh"])
def test_a_file_of_another_build(bit: Path, suffix: str) -> None:
    path = bit.with_suffix(suffix)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(BoardError, match=rf"edgemtl\{suffix}: is stale: it is not of the build that wrote"):
        bitstream.open_bitstream(bit)
    path.unlink()
    with pytest.raises(BoardError, match=rf"edgemtl\{suffix} is missing"):
        bitstream.open_bitstream(bit)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"register_version": 9}, r"has register map version 9, this edgemtl 2: build the bitstream again"),
        ({"format_version": 1}, r"has weight layout version 1, this edgemtl 2: build the bitstream again"),
        ({"board": "kv260"}, r"is for the board kv260; needed is one for zcu102 or zcu104"),
        ({"clock_hz": -1}, "is no record of a build"),
        ({"more": 1}, "is no record of a build"),
    ],
)
def test_other_versions(bit: Path, changes: dict[str, Any], message: str) -> None:
    path = bit.with_suffix(".json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(BoardError, match=message):
        bitstream.open_bitstream(bit)


def test_no_record(bit: Path) -> None:
    bit.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(BoardError, match="is no record of a build"):
        bitstream.open_bitstream(bit)
    bit.with_suffix(".json").unlink()
    with pytest.raises(BoardError, match="cannot read .*edgemtl.json: No such file"):
        bitstream.open_bitstream(bit)


def test_a_stale_handoff(tmp_path: Path) -> None:
    """The hash tells where the record is of the other file; the registers tell where the whole build is older."""
    bit = virtual_files.write(tmp_path, fault="stale-hwh")
    with pytest.raises(BoardError, match="edgemtl.hwh: is stale: it is not of the build"):
        bitstream.open_bitstream(bit)
    bitstream.write_record(bit, board=board.DEFAULT, clock_hz=300e6, tool="an older build")
    with pytest.raises(BoardError, match=r"is stale: it has register w0_1 nowhere, this edgemtl's kernel .*at 0x18"):
        bitstream.open_bitstream(bit)


KERNEL, ELSEWHERE = 'VLNV="edgemtl:hls:edgemtl_top:2.0"', 'VALUE="140"'


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (KERNEL, 'VLNV="edgemtl:hls:edgemtl_top:1.0"', "edgemtl_top version 2.0, the design holds version 1.0 of it"),
        (KERNEL, 'VLNV="other:hls:other:1.0"', "edgemtl_top version 2.0, the design holds none of it"),
        (ELSEWHERE, 'VALUE="144"', r"is stale: it has register task at 0x90, .*at 0x8c"),
        (ELSEWHERE, 'VALUE="far"', "has 'far' in place of an address"),
        ('MEMTYPE="REGISTER"', 'MEMTYPE="MEMORY"', "gives edgemtl_top_0 no address"),
        ("0XA000FFFF", "0XA000007F", "gives edgemtl_top_0 128 bytes, too few"),
        ("</EDKSYSTEM>", "", "is cut short or no XML"),
        ("<EDKSYSTEM", "<!DOCTYPE x [<!ENTITY a 'b'>]><EDKSYSTEM", "has a document type or entities"),
        ("<MODULES>", "<MODULES>" + "<a>" * 70 + "</a>" * 70, "nested or large beyond any hardware handoff"),
    ],
)
def test_other_handoffs(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = virtual_files.hwh(board.find())
    assert old in text
    path = tmp_path / "edgemtl.hwh"
    path.write_text(text.replace(old, new))
    with pytest.raises(BoardError, match=message):
        handoff.check(handoff.read(path), path)


def test_a_handoff_that_is_not_there_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoardError, match="cannot read .*no.hwh: No such file"):
        handoff.read(tmp_path / "no.hwh")
    (tmp_path / "large.hwh").write_text(virtual_files.hwh(board.find()))
    monkeypatch.setattr(handoff, "MAX_BYTES", 100)
    with pytest.raises(BoardError, match="larger than any .hwh"):
        handoff.read(tmp_path / "large.hwh")


def test_a_clock_that_is_not_said(tmp_path: Path) -> None:
    for text in (
        virtual_files.hwh(board.find()).replace(handoff.CLOCK, "OTHER"),
        virtual_files.hwh(board.find()).replace('"300"', '"fast"'),
    ):
        (tmp_path / "a.hwh").write_text(text)
        assert handoff.read(tmp_path / "a.hwh").clock_hz == 0
