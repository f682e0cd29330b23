"""What a board needs before the first frame, each point with its remedy: behind `edgemtl doctor --board`.

Reads files alone, but for the clock, which pynq knows. `Machine` names everything that is looked at, so that a test can
put a folder in the place of /.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgemtl.errors import EdgeMTLError
from edgemtl.fpga import bitstream, program
from edgemtl.fpga.bitstream import Bitstream
from edgemtl.fpga.board import names
from edgemtl.fpga.contract import PROGRAM_VERSION

IMAGE, PYNQ, KERNEL = "PYNQ 4.0.0", (3, 0), (5, 15)
SPARE = 4 << 20  # bytes of contiguous memory beside the weights: pixels, maps, program
CLOCK_TOLERANCE = 0.01
NAMED = "proc/device-tree/chosen/pynq_board"


def _pynq_version() -> str | None:
    try:
        return version("pynq")
    except PackageNotFoundError:
        return None


def _clock_hz() -> float:
    import pynq

    return float(pynq.Clocks.fclk0_mhz) * 1e6


@dataclass(frozen=True)
class Machine:
    """What is looked at; the defaults are this machine."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    uid: Callable[[], int] = os.geteuid
    pynq: Callable[[], str | None] = _pynq_version
    clock_hz: Callable[[], float] = _clock_hz

    def text(self, path: str) -> str:
        """The file's text without its zero bytes; "" where there is none."""
        try:
            return (self.root / path).read_text(errors="replace").strip("\0\n ")
        except OSError:
            return ""

    @property
    def board(self) -> str | None:
        """This board's name, if it is one that edgemtl knows."""
        name = self.text(NAMED).lower()
        return name if name in names() else None


@dataclass(frozen=True)
class Point:
    """One point: good, bad, or None where it could not be looked at; what was found; what to do."""

    name: str
    good: bool | None
    found: str
    remedy: str = ""


def check(bundle: Path | None = None, machine: Machine | None = None) -> list[Point]:
    """Every point, in the order in which to put them right. `bundle` is what is to run."""
    here = machine or Machine()
    points = [_board(here), _kernel(here), _pynq(here), _root(here), _xrt(here)]
    need, of_bundle = _bundle(here, bundle)
    points += [_memory(here, need), of_bundle]
    found, of_bitstream = _bitstream(here, bundle)
    return [*points, of_bitstream, _clock(here, found)]


def _board(here: Machine) -> Point:
    name, known = here.text(NAMED), names()
    image = here.text("home/xilinx/REVISION").splitlines()
    if not name:
        return Point("board", False, "this is no PYNQ image", f"write the {IMAGE} image to the SD card")
    shown = f"{name}, image {image[0] if image else 'of unknown release'}"
    if name.lower() not in known:
        return Point("board", False, shown, f"this edgemtl drives {', '.join(known)}: use such a board and its image")
    return Point("board", True, shown)


def _kernel(here: Machine) -> Point:
    found = re.search(r"Linux version (\d+)\.(\d+)\S*", here.text("proc/version"))
    if found is None:
        return Point("kernel", None, "/proc/version does not say")
    good = (int(found[1]), int(found[2])) >= KERNEL
    remedy = "" if good else f"it is older than the oldest image with pynq {PYNQ[0]}: write the {IMAGE} image"
    return Point("kernel", good, found[0], remedy)


def _pynq(here: Machine) -> Point:
    has = here.pynq()
    if has is None:
        remedy = "source /etc/profile.d/pynq_venv.sh, so that Python is the image's, or pip install edgemtl[fpga]"
        return Point("pynq", False, "not installed for this Python", remedy)
    numbers = tuple(int(n) for n in re.findall(r"\d+", has)[:2])
    return Point("pynq", numbers >= PYNQ, has, "" if numbers >= PYNQ else f"write the {IMAGE} image")


def _root(here: Machine) -> Point:
    good = here.uid() == 0
    return Point("root", good, "yes" if good else "no", "" if good else "sudo -i; registers are behind /dev/mem")


def _xrt(here: Machine) -> Point:
    value = here.environ.get("XILINX_XRT", "")
    remedy = "" if value else "source /etc/profile.d/xrt_setup.sh; sudo drops it, sudo -i and source keeps it"
    return Point("XILINX_XRT", bool(value), value or "not set", remedy)


def _memory(here: Machine, need: int) -> Point:
    found = {k: 1024 * int(v) for k, v in re.findall(r"(Cma\w+): +(\d+) kB", here.text("proc/meminfo"))}
    if "CmaFree" not in found:
        remedy = "add cma=256M to the kernel's command line (bootargs), and boot"
        return Point("contiguous memory", False, "the kernel has none (no CmaFree in /proc/meminfo)", remedy)
    shown = f"{need} bytes needed, {found['CmaFree']} of {found.get('CmaTotal', 0)} free"
    if found["CmaFree"] < need:
        remedy = "close other users of it (notebooks: restart their kernels), or boot with a larger cma="
        return Point("contiguous memory", False, shown, remedy)
    return Point("contiguous memory", True, shown)


def _bundle(here: Machine, path: Path | None) -> tuple[int, Point]:
    """The bytes that the bundle's buffers take, and its point."""
    from edgemtl.bundle.reader import Bundle

    if path is None:
        return SPARE, Point("bundle", None, "none was given", "edgemtl doctor --board NAME.edgemtl")
    try:
        with Bundle.open(path) as bundle:
            made = program.load(bundle, here.board)
    except EdgeMTLError as error:
        return SPARE, Point(
            "bundle", False, str(error), f"compile it with this edgemtl, with --target {here.board or 'BOARD'}"
        )
    found = f"{path}: weight layout version {PROGRAM_VERSION}, tasks {', '.join(made.tasks)}"
    return made.banks.nbytes + SPARE, Point("bundle", True, found)


def _bitstream(here: Machine, bundle: Path | None) -> tuple[Bitstream | None, Point]:
    given = here.environ.get(bitstream.VARIABLE)
    path = Path(given) if given else (bundle.resolve().parent if bundle else Path.cwd()) / bitstream.NAME
    try:
        if not path.is_file():
            remedy = f"put {bitstream.NAME}, .hwh and .json there, or set {bitstream.VARIABLE}"
            return None, Point("bitstream", False, f"there is no {path}", remedy)
        found = bitstream.open_bitstream(path, here.board)
    except EdgeMTLError as error:
        return None, Point("bitstream", False, str(error), "copy the .bit, .hwh and .json of one build")
    record = found.record
    shown = f"{path}: register map version {record.register_version}, {record.clock_hz / 1e6:g} MHz, {record.tool}"
    return found, Point("bitstream", True, shown)


def _clock(here: Machine, found: Bitstream | None) -> Point:
    if found is None or here.pynq() is None or here.uid() != 0:
        return Point("clock", None, "not read: it takes pynq, root and a bitstream")
    try:
        hertz = here.clock_hz()
    except Exception as error:  # pynq fails in many ways off a board
        return Point("clock", False, f"pynq cannot read it: {error}", "put right the points above")
    wanted = found.record.clock_hz
    shown = f"{hertz / 1e6:.3f} MHz, the bitstream is built for {wanted / 1e6:g} MHz"
    if abs(hertz - wanted) > CLOCK_TOLERANCE * wanted:
        remedy = "pynq sets it when it loads the bitstream: run a frame with --backend fpga, and look again"
        return Point("clock", False, shown, remedy)
    return Point("clock", True, shown)
