"""What Vivado wrote of a design in its hardware handoff (.hwh): the accelerator's address, registers and clock.

pynq reads the same file. It is read here first, without pynq, so that a .hwh of another kernel is refused by name and
not met as a kernel that hangs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element

from edgemtl import safe_xml
from edgemtl.errors import BoardError
from edgemtl.fpga import registers
from edgemtl.fpga.contract import REGISTER_VERSION

MAX_BYTES = 64 << 20
CLOCK = "PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ"


@dataclass(frozen=True)
class Handoff:
    """The accelerator in a design: where its registers lie, their offsets by name, and the clock in Hz (0: unsaid)."""

    instance: str
    base: int
    span: int
    offsets: dict[str, int]
    clock_hz: float
    vivado: str


def read(path: Path) -> Handoff:
    """Parse `path`; raises BoardError for what is no .hwh, or one without this accelerator."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BoardError(f"{path}: is larger than any .hwh of this design")
        text = path.read_text("utf-8", errors="replace")
    except OSError as error:
        raise BoardError(f"cannot read {path}: {error.strerror}") from None
    root = safe_xml.tree(text, str(path), "hardware handoff (.hwh)", BoardError)
    modules = {m.get("VLNV", ""): m for m in root.iter("MODULE")}
    found = modules.get(registers.VLNV)
    if found is None:
        kernel, own = registers.VLNV.rsplit(":", 1)
        others = sorted(v for v in modules if v.startswith(f"{kernel}:"))
        held = f"version {others[0].rsplit(':', 1)[1]} of it" if others else "none of it"
        raise BoardError(f"{path}: this edgemtl drives {kernel} version {own}, the design holds {held}")
    instance = found.get("INSTANCE", "")
    ranges = [r for r in root.iter("MEMRANGE") if r.get("INSTANCE") == instance and r.get("MEMTYPE") == "REGISTER"]
    if not ranges:
        raise BoardError(f"{path}: gives {instance} no address; build the design again")
    base, high = (_number(ranges[0].get(k), path) for k in ("BASEVALUE", "HIGHVALUE"))
    offsets = {
        r.get("NAME", ""): _number(p.get("VALUE"), path)
        for r in found.iter("REGISTER")
        for p in r.iterfind("PROPERTY")
        if p.get("NAME") == "ADDRESS_OFFSET"
    }
    return Handoff(instance, base, high - base + 1, offsets, _clock(root), root.get("VIVADOVERSION", ""))


def check(found: Handoff, path: Path) -> None:
    """Raises BoardError where a register of this edgemtl's driver is missing or lies elsewhere: a stale .hwh."""
    wanted: dict[str, int] = {}
    for r in registers.layout():
        names = (r.name,) if r.bits == 32 else (f"{r.name}_1", f"{r.name}_2")
        wanted |= {name: r.offset + 4 * half for half, name in enumerate(names)}
    for name, offset in wanted.items():
        if found.offsets.get(name) != offset:
            has = f"at {found.offsets[name]:#x}" if name in found.offsets else "nowhere"
            raise BoardError(
                f"{path}: is stale: it has register {name} {has}, this edgemtl's kernel (register map version "
                f"{REGISTER_VERSION}) at {offset:#x}; copy the .bit and .hwh of one build"
            )
    if found.span < max(wanted.values()) + 4:
        raise BoardError(f"{path}: gives {found.instance} {found.span} bytes, too few for its registers")


def _number(text: str | None, path: Path) -> int:
    try:
        return int(text or "", 0)
    except ValueError:
        raise BoardError(f"{path}: has {text!r} in place of an address; build the design again") from None


def _clock(root: Element) -> float:
    for parameter in root.iter("PARAMETER"):
        if parameter.get("NAME") == CLOCK:
            try:
                return float(parameter.get("VALUE", "")) * 1e6
            except ValueError:
                return 0.0
    return 0.0
