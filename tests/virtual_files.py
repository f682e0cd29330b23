"""The virtual board's .bit, .hwh and .json: files of the form that pynq parses, with no logic in them."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import quoteattr

from edgemtl.fpga import bitstream, registers
from edgemtl.fpga.board import Facts, find
from edgemtl.fpga.contract import ARGUMENTS, KERNEL, Arguments

DESIGN = "edgemtl_wrapper;Version=virtual"
Fault = Literal["stale-hwh"]
Field = tuple[str, int, int]  # name, first bit, bits
CONTROL: tuple[Field, ...] = (("AP_START", 0, 1), ("AP_DONE", 1, 1), ("AP_IDLE", 2, 1), ("AP_READY", 3, 1))


def write(folder: Path, board: Facts | None = None, *, fault: Fault | None = None) -> Path:
    """Write the three files for `board` into `folder`; gives the .bit. `stale-hwh`: the .hwh of a build with other
    registers.
    """
    board = board or find()
    folder.mkdir(parents=True, exist_ok=True)
    bit = folder / bitstream.NAME
    bit.write_bytes(_bit(board.part))
    bit.with_suffix(".hwh").write_text(hwh(board))
    bitstream.write_record(bit, board=board.name, clock_hz=board.clock.hz, tool=bitstream.VIRTUAL)
    if fault == "stale-hwh":
        bit.with_suffix(".hwh").write_text(hwh(board, ARGUMENTS[1:]))
    return bit


def _bit(part: str) -> bytes:
    """The header that Vivado writes, as pynq reads it, and four bytes of payload."""

    def field(key: int, text: str) -> bytes:
        return bytes([key]) + struct.pack(">h", len(text) + 1) + text.encode() + b"\0"

    first = struct.pack(">h", 9) + b"\x0f\xf0" * 4 + b"\0" + struct.pack(">h", 1)
    fields = (field(0x61, DESIGN), field(0x62, part), field(0x63, "2026/01/01"), field(0x64, "00:00:00"))
    return first + b"".join(fields) + b"\x65" + struct.pack(">i", 4) + bytes(4)


def hwh(board: Facts, arguments: Arguments = ARGUMENTS) -> str:
    """A handoff with the processing system and one kernel."""
    base, (device, package, grade, _) = board.registers.base, board.part.split("-")
    rows = []
    for r in registers.layout(arguments):
        names = [r.name] if r.bits == 32 else [f"{r.name}_1", f"{r.name}_2"]
        fields = CONTROL if r.name == "CTRL" else ((r.name, 0, 32),)
        rows += [_register(name, r.offset + 4 * i, r.access, fields) for i, name in enumerate(names)]
    kernel, clock = f"{KERNEL}_0", "PSU__CRL_APB__PL{}_REF_CTRL__{}"
    clocks = "".join(
        _tag("PARAMETER", NAME=name, VALUE=value)
        for i, mhz in enumerate((f"{board.clock.mhz:g}", 100, 100, 100))
        for name, value in (
            (f"PSU__FPGA_PL{i}_ENABLE", int(i == 0)),
            (clock.format(i, "ACT_FREQMHZ"), mhz),
            (clock.format(i, "DIVISOR0"), 5),
            (clock.format(i, "DIVISOR1"), 1),
            (clock.format(i, "SRCSEL"), "IOPLL"),
        )
    )
    memory = _tag(
        "MEMRANGE", ADDRESSBLOCK="Reg", BASENAME="C_BASEADDR", BASEVALUE=f"{base:#X}", HIGHNAME="C_HIGHADDR",
        HIGHVALUE=f"{base + registers.SPAN - 1:#X}", INSTANCE=kernel, IS_DATA="TRUE", IS_INSTRUCTION="TRUE",
        MASTERBUSINTERFACE="M_AXI_HPM0_FPD", MEMTYPE="REGISTER", SLAVEBUSINTERFACE="s_axi_control",
    )  # fmt: skip
    block = _tag(
        "ADDRESSBLOCK", f"<REGISTERS>{''.join(rows)}</REGISTERS>", ACCESS="read-write", INTERFACE="s_axi_control",
        NAME="Reg", RANGE=registers.SPAN, USAGE="register",
    )  # fmt: skip
    top = _module(
        kernel, KERNEL, registers.VLNV, f"<ADDRESSBLOCKS>{block}</ADDRESSBLOCKS><PARAMETERS/>",
        _bus("s_axi_control", "SLAVE", 32, "s_axi_control_AWADDR"),
    )  # fmt: skip
    ps = _module(
        "zynq_ultra_ps_e_0", "zynq_ultra_ps_e", "xilinx.com:ip:zynq_ultra_ps_e:3.5",
        f"<PARAMETERS>{clocks}</PARAMETERS>", _bus("M_AXI_HPM0_FPD", "MASTER", 128, "maxigp0_awaddr"),
        f"<MEMORYMAP>{memory}</MEMORYMAP>",
    )  # fmt: skip
    system = _tag(
        "SYSTEMINFO", ARCH="zynquplus", BOARD=board.vivado, DEVICE=device, NAME="edgemtl",
        PACKAGE=package, SPEEDGRADE=f"-{grade}",
    )  # fmt: skip
    inside = f"{system}<EXTERNALPORTS/><EXTERNALINTERFACES/><MODULES>{top}{ps}</MODULES>"
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _tag(
        "EDKSYSTEM", inside, EDWVERSION="1.2", TIMESTAMP="", VIVADOVERSION="virtual"
    )


def _tag(name: str, inside: str = "", **attributes: object) -> str:
    words = " ".join(f"{k}={quoteattr(str(v))}" for k, v in attributes.items())
    return f"<{name} {words}>{inside}</{name}>" if inside else f"<{name} {words}/>"


def _properties(**values: object) -> str:
    return "".join(_tag("PROPERTY", NAME=k, VALUE=v) for k, v in values.items())


def _register(name: str, offset: int, access: str, fields: tuple[Field, ...]) -> str:
    word = "read-write" if access == "RW" else "read-only"
    inside = _properties(
        DESCRIPTION=name, ADDRESS_OFFSET=offset, SIZE=32, ACCESS=word, IS_ENABLED="true", RESET_VALUE=0
    )
    parts = "".join(
        _tag("FIELD", _properties(DESCRIPTION=n, ADDRESS_OFFSET=at, ACCESS=word, BIT_OFFSET=at, BIT_WIDTH=bits), NAME=n)
        for n, at, bits in fields
    )
    return _tag("REGISTER", f"{inside}<FIELDS>{parts}</FIELDS>", NAME=name)


def _bus(name: str, kind: str, bits: int, port: str) -> str:
    wire = _tag("PORT", "<CONNECTIONS/>", DIR="I" if kind == "SLAVE" else "O", NAME=port, SIGNAME=f"net_{port}")
    bus = _tag(
        "BUSINTERFACE", f"<PORTMAPS>{_tag('PORTMAP', LOGICAL='AWADDR', PHYSICAL=port)}</PORTMAPS>", BUSNAME="control",
        DATAWIDTH=bits, NAME=name, TYPE=kind, VLNV="xilinx.com:interface:aximm:1.0",
    )  # fmt: skip
    return f"<PORTS>{wire}</PORTS><BUSINTERFACES>{bus}</BUSINTERFACES>"


def _module(instance: str, kind: str, vlnv: str, *inside: str) -> str:
    return _tag(
        "MODULE", "".join(inside), COREREVISION=0, FULLNAME=f"/{instance}", HWVERSION=vlnv.rsplit(":", 1)[1],
        INSTANCE=instance, IPTYPE="PERIPHERAL", IS_ENABLE=1, MODCLASS="PERIPHERAL", MODTYPE=kind, VLNV=vlnv,
    )  # fmt: skip
