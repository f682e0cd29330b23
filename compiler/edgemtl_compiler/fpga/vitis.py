"""The way into AMD's tools: one list of units, from which configurations, Tcl scripts and command lines follow.

Two generations: `v++` with `vitis-run` (2023.2 and newer; the only one since 2025.1), else `vitis_hls` (2022.2 and
newer). Written for Vitis and Vivado 2025.2 with PYNQ 4.0.0. **It has never met the tools**: the tests run the commands
against stand-ins that check every word, and compile the test bench with g++.

    make -C bitstreams tools                  which of the tools this machine has, and what they can do
    make -C bitstreams csim UNIT=linear       or csynth, cosim, export, report; UNIT=top is the whole accelerator
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgemtl.errors import CompileError
from edgemtl.fpga import board as boards
from edgemtl.fpga import contract, registers

PAIR = "Vitis and Vivado 2025.2 with PYNQ 4.0.0"
UNIFIED_FROM, CLASSIC_FROM = (2023, 2), (2022, 2)
BLOCKS = {"URAM288": "uram", "BRAM36": "bram"}  # as the pragma bind_storage names them
ACTIONS = ("csim", "csynth", "cosim", "export")
Generation = Literal["unified", "classic"]


@dataclass(frozen=True)
class Unit:
    """A part of the accelerator that is synthesised on its own: its name and its top function."""

    name: str
    top: str


_ALONE = ("experts", *(name for name in contract.UNITS if name not in ("program", "embed", "tokens")))
UNITS = {"top": Unit("top", contract.KERNEL)} | {name: Unit(name, f"edgemtl_unit_{name}") for name in _ALONE}


@dataclass(frozen=True)
class Tool:
    """A program on PATH and its version; `why_not` says what is wrong with it, in words."""

    name: str
    path: str = ""
    version: tuple[int, int] | None = None
    why_not: str = ""

    @property
    def shown(self) -> str:
        return f"{self.name} {self.version[0]}.{self.version[1]}" if self.version else self.name


@dataclass(frozen=True)
class Job:
    """One unit to work on for a board: `sources` is the `hls` folder, `vectors` holds UNIT-*.bin, `work` is its own."""

    unit: Unit
    sources: Path
    vectors: Path
    work: Path
    board: boards.Facts = field(default_factory=boards.find)

    @property
    def files(self) -> list[Path]:
        own = [] if self.unit.name == "top" else [self.sources / "vitis" / "units.cpp"]
        return [*sorted((self.sources / "src").glob("*.cpp")), *own]

    @property
    def bench(self) -> Path:
        return self.sources / "vitis" / "testbench.cpp"

    @property
    def cflags(self) -> str:
        """-iquote and not -I: limits.h must not hide the system's <limits.h>. The board's kinds of memory follow."""
        kinds = (f"-DEDGEMTL_{name.upper()}={BLOCKS[kind]}" for name, kind in self.board.memories)
        return " ".join([f"-std=c++14 -iquote {self.sources / 'include'}", *kinds])

    @property
    def period(self) -> str:
        """Of the board's clock, in ns."""
        return f"{1e3 / self.board.clock.mhz:.2f}"

    @property
    def bench_cflags(self) -> str:
        frame = "-DEDGEMTL_FRAME" if self.unit.name == "top" else f"-DEDGEMTL_UNIT={self.unit.top}"
        return f"{self.cflags} {frame}"

    @property
    def argv(self) -> str:
        """The vectors that the test bench replays."""
        return " ".join(str(p) for p in sorted(self.vectors.glob(f"{self.unit.name}-*.bin")))

    def check(self, action: str) -> None:
        """Raises CompileError where the action cannot work."""
        for path in (self.sources, self.vectors, self.work):
            if re.search(r"[\s\"'{}\[\]$;,]", str(path)):
                raise CompileError(
                    f"Vitis cannot use the path {path}: move the checkout to one without spaces or signs"
                )
        if action in ("csim", "cosim") and not self.argv:
            raise CompileError(
                f"{action} needs vectors of {self.unit.name} in {self.vectors}: type make -C bitstreams vectors"
            )
        if action in ("cosim", "export") and not (self.work / "synthesised").is_file():
            raise CompileError(
                f"{action} needs a synthesised {self.unit.name}: type make -C bitstreams csynth UNIT={self.unit.name}"
            )


def config(job: Job) -> str:
    """The text of `hls_config.cfg`."""
    lines = [
        "# Made by edgemtl_compiler.fpga.vitis; the list of units there is the place to change it.",
        f"part={job.board.part}",
        "",
        "[hls]",
        f"clock={job.period}ns",
        "flow_target=vivado",
        *(f"syn.file={f}" for f in job.files),
        f"syn.top={job.unit.top}",
        f"syn.cflags={job.cflags}",
        f"tb.file={job.bench}",
        f"tb.cflags={job.bench_cflags}",
        *([f"csim.argv={job.argv}", f"cosim.argv={job.argv}"] if job.argv else []),
        "package.output.format=ip_catalog",
        *(f"package.ip.{key}={value}" for key, value in _identity(job.unit).items()),
    ]
    return "\n".join(lines) + "\n"


def script(job: Job, action: str) -> str:
    """The text of the Tcl script that makes vitis_hls do the same."""
    fresh = " -reset" if action in ("csim", "csynth") else ""
    names = _identity(job.unit)
    names["ipname"] = names.pop("name")
    export = " ".join(f"-{key} {value}" for key, value in names.items())
    run = {
        "csim": f"csim_design -argv {{{job.argv}}}",
        "csynth": "csynth_design",
        "cosim": f"cosim_design -argv {{{job.argv}}}",
        "export": f"export_design -format ip_catalog {export}",
    }[action]
    lines = [
        f"open_project{fresh} {job.unit.name}",
        f"set_top {job.unit.top}",
        *(f"add_files {f} -cflags {{{job.cflags}}}" for f in job.files),
        f"add_files -tb {job.bench} -cflags {{{job.bench_cflags}}}",
        f"open_solution{fresh} -flow_target vivado solution",
        f"set_part {job.board.part}",
        f"create_clock -period {job.period} -name default",
        run,
        "exit",
    ]
    return "\n".join(lines) + "\n"


def _identity(unit: Unit) -> dict[str, str]:
    """Vendor, library, name and version of the IP; the top's is what the driver binds to."""
    vendor, library, _, version = registers.VLNV.split(":")
    return {"vendor": vendor, "library": library, "name": unit.top, "version": version}


def find(name: str) -> Tool:
    """The tool `name` on PATH, asked for its version."""
    path = shutil.which(name)
    if path is None:
        return Tool(name, why_not=f"no {name} on PATH")
    option = "-version" if name in ("vitis_hls", "vivado") else "--version"
    try:
        done = subprocess.run(
            [path, option], capture_output=True, text=True, errors="replace", timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return Tool(name, path, why_not=f"{name} does not answer to {option}")
    found = re.search(r"\bv(20\d\d)\.(\d)", done.stdout + done.stderr)
    if found is None:
        return Tool(name, path, why_not=f"{name} does not say its version to {option}")
    return Tool(name, path, (int(found[1]), int(found[2])))


def usable(tool: Tool, oldest: tuple[int, int]) -> Tool:
    """The tool, with the reason where it is older than `oldest`."""
    if tool.version and tool.version < oldest:
        why = f"{tool.shown} is older than {oldest[0]}.{oldest[1]}"
        return Tool(tool.name, tool.path, tool.version, why)
    return tool


def generation() -> tuple[Generation, dict[str, Tool]]:
    """Which generation of tools to use, and the tools; raises CompileError where there is none new enough."""
    tools = {n: usable(find(n), UNIFIED_FROM) for n in ("v++", "vitis-run")}
    if not any(t.why_not for t in tools.values()):
        return "unified", tools
    classic = usable(find("vitis_hls"), CLASSIC_FROM)
    if not classic.why_not:
        return "classic", {"vitis_hls": classic}
    reasons = ", ".join(t.why_not for t in (*tools.values(), classic) if t.why_not)
    raise CompileError(
        f"Vitis HLS is missing: {reasons}; this flow is written for {PAIR}: type source INSTALLATION/settings64.sh"
    )


def commands(job: Job, action: str, which: Generation, tools: dict[str, Tool]) -> list[str]:
    """The command line of `action`, run in the job's work folder."""
    if which == "classic":
        return [tools["vitis_hls"].path, "-f", str(job.work / f"{action}.tcl")]
    where = ["--config", str(job.work / "hls_config.cfg"), "--work_dir", str(job.work / "work")]
    if action == "csynth":
        return [tools["v++"].path, "-c", "--mode", "hls", *where]
    step = {"csim": "--csim", "cosim": "--cosim", "export": "--package"}[action]
    return [tools["vitis-run"].path, "--mode", "hls", step, *where]


def run(job: Job, action: str) -> None:
    """Write the configuration and do `action` with the tools found; raises CompileError where that fails."""
    job.check(action)
    which, tools = generation()
    write(job)
    command = commands(job, action, which, tools)
    print(" ".join(command), flush=True)
    try:
        code = subprocess.run(command, cwd=job.work, check=False).returncode
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be started: {error.strerror}") from None
    if code:
        raise CompileError(f"{action} of {job.unit.name} failed: {Path(command[0]).name} ended with {code}; see above")
    if action == "csynth":
        (job.work / "synthesised").write_text(which)


def write(job: Job) -> None:
    """The configuration and the scripts of both generations, into the work folder."""
    job.work.mkdir(parents=True, exist_ok=True)
    (job.work / "hls_config.cfg").write_text(config(job))
    for action in ACTIONS:
        (job.work / f"{action}.tcl").write_text(script(job, action))


def csynth_report(job: Job) -> Path:
    """The synthesis report of whichever generation made one; raises CompileError where there is none."""
    folders = [job.work / "work" / "hls" / "syn" / "report", job.work / job.unit.name / "solution" / "syn" / "report"]
    for folder in folders:
        for name in (f"{job.unit.top}_csynth.xml", "csynth.xml"):
            if (folder / name).is_file():
                return folder / name
    raise CompileError(
        f"there is no synthesis report of {job.unit.name}: type make -C bitstreams csynth UNIT={job.unit.name}"
    )
