"""The way into AMD's tools, without them: stand-ins check every word of every command, and g++ runs the test bench."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import unit_vectors
import vectors
from csim_units import CSim
from hls_models import HLS
from numpy.typing import NDArray

from edgemtl.errors import CompileError
from edgemtl.fpga import board, counters
from edgemtl.fpga.contract import WORD
from edgemtl.model import MultiTaskViT
from edgemtl_compiler.fpga import program, vitis, vitis_cli
from edgemtl_compiler.fpga.network import IntegerNetwork

ROOT = HLS.parent
XML = Path(__file__).parent / "reports" / "edgemtl_top_csynth.xml"
SAYS = {
    "v++": "****** v++ v{} (64-bit)",
    "vitis-run": "****** vitis-run v{} (64-bit)",
    "vitis_hls": "Vitis HLS - High-Level Synthesis from C, C++ and OpenCL v{} (64-bit)",
    "vivado": "vivado v{} (64-bit)",
}
KINDS = "-DEDGEMTL_STREAM=uram -DEDGEMTL_POOL=uram -DEDGEMTL_ROWS=bram"
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """`install(v++="2025.2", code=0)` puts stand-ins alone on PATH; their log is the file returned."""
    folder, log = tmp_path / "bin", tmp_path / "log"
    monkeypatch.setenv("PATH", str(folder))

    def put(code: int = 0, **versions: str) -> Path:
        folder.mkdir(exist_ok=True)
        for key, version in versions.items():
            name = {"vpp": "v++", "vitis_run": "vitis-run"}.get(key, key)
            tool = folder / name
            tool.write_text(
                f'#!/bin/sh\ncase "$1" in -version|--version) echo "{SAYS[name].format(version)}"; exit 0;; esac\n'
                f'echo "{name} $*" >> {log}\nexit {code}\n'
            )
            tool.chmod(0o755)
        return log

    return put


@pytest.fixture
def job(tmp_path: Path) -> vitis.Job:
    """The whole accelerator, with vectors (empty ones: the stand-ins do not read them)."""
    (tmp_path / "vectors").mkdir()
    (tmp_path / "vectors" / "top-a.bin").touch()
    return vitis.Job(vitis.UNITS["top"], HLS, tmp_path / "vectors", tmp_path / "top")


def settings_of(text: str) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, found, value = line.partition("=")
        if found and not line.startswith("#"):
            out.setdefault(key, []).append(value)
    return out


def test_configuration(job: vitis.Job) -> None:
    text = vitis.config(job)
    found = settings_of(text)
    assert text.index("part=") < text.index("[hls]") < text.index("clock=")
    assert found["part"] == ["xczu7ev-ffvc1156-2-e"]
    assert (found["clock"], found["flow_target"]) == (["3.33ns"], ["vivado"])
    assert sorted(found["syn.file"]) == sorted(str(p) for p in (HLS / "src").glob("*.cpp"))
    assert found["syn.top"] == ["edgemtl_top"]
    assert found["syn.cflags"] == [f"-std=c++14 -iquote {HLS}/include {KINDS}"]
    assert found["tb.file"] == [f"{HLS}/vitis/testbench.cpp"]
    assert found["csim.argv"] == found["cosim.argv"] == [str(job.vectors / "top-a.bin")]
    assert found["package.output.format"] == ["ip_catalog"]
    (job.vectors / "top-a.bin").unlink()
    assert "argv" not in vitis.config(job)
    identity = [found[f"package.ip.{k}"][0] for k in ("vendor", "library", "name", "version")]
    assert ":".join(identity) == "edgemtl:hls:edgemtl_top:2.0"


@pytest.mark.parametrize("unit", vitis.UNITS)
def test_every_top_exists(unit: str) -> None:
    """The list of units and the C++ sources cannot drift apart."""
    job = vitis.Job(vitis.UNITS[unit], HLS, ROOT, ROOT)
    assert all(p.is_file() for p in (*job.files, job.bench))
    text = "".join(p.read_text() for p in job.files)
    assert re.search(rf"\b{job.unit.top}\b", text)


def test_commands_of_the_unified_tools(install: Install, job: vitis.Job) -> None:
    log = install(vpp="2025.2", vitis_run="2025.2", vitis_hls="2024.2")
    where = f"--config {job.work}/hls_config.cfg --work_dir {job.work}/work"
    for action in ("csim", "csynth", "cosim", "export"):
        vitis.run(job, action)
    assert log.read_text().splitlines() == [
        f"vitis-run --mode hls --csim {where}",
        f"v++ -c --mode hls {where}",
        f"vitis-run --mode hls --cosim {where}",
        f"vitis-run --mode hls --package {where}",
    ]
    assert (job.work / "hls_config.cfg").read_text() == vitis.config(job)


def test_commands_of_the_older_tool(install: Install, job: vitis.Job) -> None:
    """v++ without vitis-run, or older than both can do HLS, does not count."""
    log = install(vpp="2022.2", vitis_run="2022.2", vitis_hls="2022.2")
    for action in ("csim", "csynth", "cosim", "export"):
        vitis.run(job, action)
    assert log.read_text().splitlines() == [
        f"vitis_hls -f {job.work}/{action}.tcl" for action in ("csim", "csynth", "cosim", "export")
    ]


STUBS = """
set log {}
foreach {name options} {
  open_project {-reset} set_top {} add_files {-cflags -tb} open_solution {-reset -flow_target} set_part {}
  create_clock {-period -name} csim_design {-argv} csynth_design {} cosim_design {-argv}
  export_design {-format -vendor -library -ipname -version}
} {
  proc $name args [string map [list %N $name %O $options] {
    foreach word $args {
      if {[string match -* $word] && [lsearch {%O} $word] < 0 && ![string match {-std*} $word]} {
        error "%N has no option $word"
      }
    }
    puts "%N|[join $args |]"
  }]
}
"""


@pytest.mark.parametrize("action", vitis.ACTIONS)
def test_scripts_run_under_tcl(job: vitis.Job, tmp_path: Path, action: str) -> None:
    """Every command is known, has known options, and the calls come in the order that the tool wants."""
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        pytest.skip("no Tcl: apt-get install tcl")
    path = tmp_path / "run.tcl"
    path.write_text(STUBS + vitis.script(job, action))
    done = subprocess.run([tclsh, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    calls = [line.split("|") for line in done.stdout.splitlines()]
    names = [c[0] for c in calls if c[0] != "add_files"]
    last = {"csim": "csim_design", "csynth": "csynth_design", "cosim": "cosim_design", "export": "export_design"}
    assert names == ["open_project", "set_top", "open_solution", "set_part", "create_clock", last[action]]
    assert ("-reset" in calls[0]) == (action in ("csim", "csynth"))
    files = [c for c in calls if c[0] == "add_files"]
    assert [c[1] for c in files[:-1]] == [str(p) for p in job.files]
    assert files[-1][1:3] == ["-tb", str(job.bench)]
    assert files[-1][4] == f"-std=c++14 -iquote {HLS}/include {KINDS} -DEDGEMTL_FRAME"
    if action == "export":
        names = "-vendor edgemtl -library hls -version 2.0 -ipname edgemtl_top"
        assert calls[-1][1:] == ["-format", "ip_catalog", *names.split()]


@pytest.mark.parametrize(
    ("versions", "message"),
    [
        ({}, "no v\\+\\+ on PATH, no vitis-run on PATH, no vitis_hls on PATH"),
        ({"vpp": "2025.2"}, "no vitis-run on PATH"),
        ({"vpp": "2023.1", "vitis_run": "2023.1"}, "v\\+\\+ 2023.1 is older than 2023.2"),
        ({"vitis_hls": "2020.1"}, "vitis_hls 2020.1 is older than 2022.2"),
        ({"vitis_hls": "unknown"}, "vitis_hls does not say its version"),
    ],
)
def test_missing_and_old_tools(install: Install, job: vitis.Job, versions: dict[str, str], message: str) -> None:
    install(**versions)
    with pytest.raises(CompileError, match=rf"^Vitis HLS is missing: .*{message}.*written for .*2025.2.*4.0.0"):
        vitis.run(job, "csynth")


def test_steps_out_of_order(install: Install, job: vitis.Job, tmp_path: Path) -> None:
    install(vpp="2025.2", vitis_run="2025.2")
    for action in ("cosim", "export"):
        with pytest.raises(CompileError, match=f"{action} needs a synthesised top: type make -C bitstreams csynth"):
            vitis.run(job, action)
    (job.vectors / "top-a.bin").unlink()
    with pytest.raises(CompileError, match="csim needs vectors of top in .*: type make -C bitstreams vectors"):
        vitis.run(job, "csim")
    spaced = vitis.Job(job.unit, HLS, job.vectors, tmp_path / "a b")
    with pytest.raises(CompileError, match="cannot use the path .*a b"):
        vitis.run(spaced, "csynth")


def test_a_tool_that_fails(install: Install, job: vitis.Job) -> None:
    install(code=3, vpp="2025.2", vitis_run="2025.2")
    with pytest.raises(CompileError, match=r"csynth of top failed: v\+\+ ended with 3"):
        vitis.run(job, "csynth")
    with pytest.raises(CompileError, match="needs a synthesised top"):
        vitis.run(job, "cosim")


@pytest.mark.parametrize("folder", ["work/hls/syn/report", "linear/solution/syn/report"])
def test_the_report_of_either_generation_is_found(tmp_path: Path, folder: str) -> None:
    job = vitis.Job(vitis.UNITS["linear"], HLS, tmp_path, tmp_path)
    with pytest.raises(CompileError, match="no synthesis report of linear: type make"):
        vitis.csynth_report(job)
    (tmp_path / folder).mkdir(parents=True)
    shutil.copy(XML, tmp_path / folder / "edgemtl_unit_linear_csynth.xml")
    assert vitis.csynth_report(job).parent == tmp_path / folder


def test_make(install: Install) -> None:
    """What a user types, without the tools: one line that says what is missing."""
    make = shutil.which("make", path=os.defpath)
    if make is None:
        pytest.skip("no make: apt-get install make")
    install()

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [make, "-s", "-C", str(ROOT / "bitstreams"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run("csynth", "UNIT=linear")
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert lines[0].startswith("error: Vitis HLS is missing: no v++ on PATH")
    assert "there is no unit 'nothing'; choose one of top, experts, norm, linear" in run("csim", "UNIT=nothing").stderr
    install(vpp="2025.2", vitis_run="2025.2", vivado="2025.2")
    done = run("tools")
    assert done.returncode == 0, done.stderr
    assert "will use v++ 2025.2 and vitis-run 2025.2" in done.stdout
    assert "vivado 2025.2" in done.stdout


def test_report_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(HLS, tmp_path / "hls")
    monkeypatch.setattr(vitis_cli, "ROOT", tmp_path)
    folder = tmp_path / "build" / "vitis" / "zcu104" / "linear" / "work" / "hls" / "syn" / "report"
    folder.mkdir(parents=True)
    shutil.copy(XML, folder / "csynth.xml")
    monkeypatch.setattr("sys.argv", ["vitis_cli", "report", "linear"])
    assert vitis_cli.main() == 0
    assert json.loads(capsys.readouterr().out)["origin"] == "vitis-hls csynth"


Quantised = tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The test bench of a unit with the shim's headers, as Vitis' C simulation links it with its own."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    folder = tmp_path_factory.mktemp("bench")
    shims = [
        f"-I{HLS / 'csim' / 'ap'}",
        f"-I{HLS / 'csim'}",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-Wno-unknown-pragmas",
        "-O1",
    ]

    def run(*words: str) -> None:
        done = subprocess.run([compiler, *words], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    sources = vitis.Job(vitis.UNITS["linear"], HLS, folder, folder)
    run(*sources.cflags.split(), *shims, "-c", *map(str, sources.files))
    objects = sorted(str(p) for p in folder.glob("*.o"))

    def link(unit: str) -> Path:
        job, out = vitis.Job(vitis.UNITS[unit], HLS, folder, folder), folder / unit
        run(*job.bench_cflags.split(), *shims, *objects, str(job.bench), "-o", str(out))
        return out

    return link


@pytest.fixture(scope="module")
def bench(linked: Callable[[str], Path]) -> Path:
    return linked("top")


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, csim: CSim) -> Path:
    """A folder with the vectors of every unit, from the simulation that the other tests have built."""
    folder = tmp_path_factory.mktemp("calls")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unit_vectors, "build", lambda sources, out: Path(csim._lib._name))
        vectors.write(folder, unit_vectors.every_unit())
    return folder


@pytest.mark.parametrize("unit", [u for u in vitis.UNITS if u != "top"])
def test_the_bench_replays_every_unit(linked: Callable[[str], Path], calls: Path, unit: str, tmp_path: Path) -> None:
    files = sorted(calls.glob(f"{unit}-*.bin"))
    assert len(files) >= 2
    program = linked(unit)
    done = replay(program, *files)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == len(files)
    damaged = bytearray(files[0].read_bytes())
    damaged[-40] ^= 4  # the last memory before the lengths
    (tmp_path / "damaged.bin").write_bytes(damaged)
    assert replay(program, tmp_path / "damaged.bin").returncode == 1


def replay(bench: Path, *files: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(bench), *map(str, files)], capture_output=True, text=True, check=False, timeout=120)


def test_the_bench_replays_frames_and_refusals(bench: Path, quantised: Quantised, tmp_path: Path) -> None:
    _, network, images = quantised
    made, pixels = program.build(network), np.ascontiguousarray(images[0].transpose(1, 2, 0))
    files = {t: vectors.frame(made, pixels, t, network.run(pixels, t)) for t in made.tasks}
    files |= vectors.refusals(made, pixels)
    paths = []
    for name, data in files.items():
        paths.append(tmp_path / f"top-{name}.bin")
        paths[-1].write_bytes(data)
    done = replay(bench, *paths)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == len(files) == 8


def test_the_bench_sees_faults(bench: Path, quantised: Quantised, tmp_path: Path) -> None:
    _, network, images = quantised
    made, pixels = program.build(network), np.ascontiguousarray(images[0].transpose(1, 2, 0))
    data = vectors.frame(made, pixels, "depth", network.run(pixels, "depth"))
    changed = bytearray(data)
    changed[-1] ^= 1
    other = bytearray(data)
    other[8] = 3  # another status
    foreign = b"x" + data[1:]
    huge = bytearray(data)
    huge[16:20] = b"\xff" * 4
    for number, (content, message) in enumerate(
        [
            (bytes(changed), "word 15 differs"),
            (bytes(other), "status 0, expected 3"),
            (data[:-1], "cut short"),
            (foreign, "no file of vectors"),
            (bytes(huge), "no file of vectors"),
            (b"", "cut short"),
        ]
    ):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(content)
        done = replay(bench, path)
        assert done.returncode == 1
        assert message in done.stdout
    assert replay(bench, tmp_path / "nothing").returncode == 1
    assert replay(bench).returncode == 1


def test_depths_of_bench_and_pragmas_agree(job: vitis.Job) -> None:
    """A port deeper than the bench's buffer would make co-simulation read beyond it."""
    text = job.bench.read_text()
    units = re.sub(r"\"\)\s*\\?\s*", "\n", (HLS / "vitis" / "units.cpp").read_text())
    depths = {name: int(value) for name, value in re.findall(r"\bk(\w+)Depth = (\d+)", text)}
    source = re.sub(r"\\\s*\n\s*", "", (HLS / "src" / "top.cpp").read_text())
    ports = dict(re.findall(r"#pragma HLS interface m_axi port = (\w+) .*?depth = (\d+)", source))
    bank, before, pixels, after = (str(depths[k]) for k in ("Bank", "Before", "Pixel", "After"))
    banks = dict.fromkeys(("w0", "w1", "w2", "w3"), bank)
    counts = str(counters.BYTES // WORD)
    assert ports == {**banks, "program": before, "pixels": pixels, "output": after, "counters": counts}
    ports = dict(re.findall(r"HLS interface m_axi port = (\w+) .*?depth = (\d+)", units))
    assert ports == {**banks, "before": before, "after": after}


@pytest.mark.parametrize(("name", "kinds"), [("zcu104", ["uram", "uram", "bram"]), ("zcu102", ["bram"] * 3)])
@pytest.mark.parametrize("source", ["src/top.cpp", "vitis/units.cpp"])
def test_the_board_chooses_the_kinds_of_memory(tmp_path: Path, name: str, kinds: list[str], source: str) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler: apt-get install g++")
    job = vitis.Job(vitis.UNITS["linear"], HLS, tmp_path, tmp_path, board.find(name))
    command = [compiler, "-E", *job.cflags.split(), f"-I{HLS / 'csim' / 'ap'}", str(HLS / source)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"#pragma HLS bind_storage variable = memory\.(\w+) type = ram_2p impl = (\w+)", text)
    assert set(found) == set(zip(("stream", "pool", "rows"), kinds, strict=True))
