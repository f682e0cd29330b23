"""The accelerator's control registers, from the kernel's argument list, by the layout that Vitis HLS gives them.

The arguments of `edgemtl_top` (hls/src/top.cpp) are `contract.ARGUMENTS`. The layout:
control at 0x00, interrupts at 0x04 .. 0x0c, the returned value at 0x10, then the arguments in order; a 32-bit scalar
takes 8 bytes, a 64-bit address 12 (low half, high half, 4 spare), a wire none. Checked on two published designs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

from edgemtl.fpga.contract import ARGUMENTS, KERNEL, REGISTER_VERSION, Arguments

VLNV = f"edgemtl:hls:{KERNEL}:{REGISTER_VERSION}.0"

CONTROL, GLOBAL_INTERRUPT, INTERRUPT_ENABLE, INTERRUPT_STATUS, RETURN = 0x00, 0x04, 0x08, 0x0C, 0x10
AP_START, AP_DONE, AP_IDLE, AP_READY, AUTO_RESTART = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 7
FIRST = 0x18  # after the returned value and its spare word


@dataclass(frozen=True)
class Register:
    """One 32- or 64-bit register; an address's high half lies 4 bytes further."""

    name: str
    offset: int
    bits: int
    access: Literal["RW", "R"]


def layout(arguments: Arguments = ARGUMENTS) -> tuple[Register, ...]:
    """All registers in ascending order of their offset."""
    out = [
        Register("CTRL", CONTROL, 32, "RW"),
        Register("GIER", GLOBAL_INTERRUPT, 32, "RW"),
        Register("IP_IER", INTERRUPT_ENABLE, 32, "RW"),
        Register("IP_ISR", INTERRUPT_STATUS, 32, "RW"),
        Register("ap_return", RETURN, 32, "R"),
    ]
    at = FIRST
    for name, kind in arguments:
        if kind == "wire":
            continue
        bits = 32 if kind == "number" else 64
        out.append(Register(name, at, bits, "RW"))
        at += 8 if bits == 32 else 12
    return tuple(out)


REGISTERS = {r.name: r for r in layout()}
SPAN = 1 << 16  # bytes of the address range that the block design gives the kernel


def as_json() -> bytes:
    """The map as a JSON file, the same bytes every time: what a bundle carries, for drivers in other languages."""
    rows = [{"name": r.name, "offset": r.offset, "bits": r.bits, "access": r.access} for r in REGISTERS.values()]
    return json.dumps(
        {"version": REGISTER_VERSION, "kernel": KERNEL, "vlnv": VLNV, "registers": rows}, indent=1
    ).encode()
