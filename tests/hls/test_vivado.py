"""The block design's Tcl under tclsh, against stubs that know Vivado's commands and the pins of the real IP."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import virtual_files
from hls_models import HLS

from edgemtl.errors import CompileError
from edgemtl.fpga import bitstream, board, handoff, registers
from edgemtl.fpga.contract import ARGUMENTS
from edgemtl_compiler.fpga import vitis_cli, vivado

ROOT = HLS.parent
FLOW = ROOT / "bitstreams"
STUBS = Path(__file__).parent / "vivado_stubs.tcl"
REPORTS = Path(__file__).parent / "reports"
Calls = list[list[str]]


@pytest.fixture
def source(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`source(change=(old, new), STATUS="...")` runs a copy of the flow, with one text changed, as Vivado would, with
    files where implementation leaves them; words change what the run's properties say.
    """
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        pytest.skip("no Tcl: apt-get install tcl")
    work, flow = tmp_path / "work", tmp_path / "flow"
    files = [
        work / "edgemtl.runs" / "impl_1" / "edgemtl_wrapper.bit",
        work / "edgemtl.gen" / "sources_1" / "bd" / "edgemtl" / "hw_handoff" / "edgemtl.hwh",
    ]
    for path in files:
        path.parent.mkdir(parents=True)
        path.write_text("x")
    shutil.copytree(FLOW, flow)

    def run(
        change: tuple[str, str] = ("", ""), *, without: str = "", name: str = board.DEFAULT, **properties: str
    ) -> subprocess.CompletedProcess[str]:
        old, new = change
        changed = [path for path in flow.rglob("*.tcl") if old and old in path.read_text()]
        assert len(changed) == bool(old)
        for path in changed:
            path.write_text(path.read_text().replace(old, new))
        words = vivado.arguments(tmp_path / "ip", work, board.find(name), 300.0)
        words[words.index("script") + 1] = str(flow / "boards" / name / "board.tcl")
        script = tmp_path / "run.tcl"
        given = [w for pair in zip(words[::2], words[1::2], strict=True) if pair[0] != without for w in pair]
        script.write_text(f"source {STUBS}\nsource {flow / 'design.tcl'}\nfinish\n")
        return subprocess.run(
            [tclsh, str(script), *given],
            capture_output=True,
            text=True,
            check=False,
            env={"STUB_RUN": " ".join(f"{k} {{{v}}}" for k, v in properties.items())},
        )

    return run


def calls(done: subprocess.CompletedProcess[str]) -> Calls:
    assert done.returncode == 0, done.stderr
    return [line.split("|") for line in done.stdout.splitlines()]


def faults(found: Calls) -> list[str]:
    """What is wrong with a design: every AXI port, clock and reset input is connected once, every master has an
    address, and each HP port its own master.
    """
    counts = {pin: int(n) for word, pin, n in (c for c in found if c[0] == "count")}
    out = [f"{pin} is connected {n} times" for pin, n in counts.items() if n != 1]
    if len(counts) != 5 + 5 + 2 + 5 * 4 + 5 + 3 + 1:
        out.append(f"{len(counts)} pins")
    nets = {c[2]: c[1] for c in found if c[0] == "connect_bd_net"}
    for pin, driver in nets.items():
        reset = pin.endswith(("rst_n", "resetn"))
        wanted = "reset/peripheral_aresetn" if reset else "ps/pl_clk0"
        wanted = {"reset/ext_reset_in": "ps/pl_resetn0", "kernel/cycle": "counter/Q"}.get(pin, wanted)
        if driver != wanted:
            out.append(f"{pin} is driven by {driver}")
    follows = {c[1]: c[2] for c in found if c[0] == "connect_bd_intf_net"}
    for number in range(4):
        through = follows.get(f"kernel/m_axi_hp{number}", "").replace("S00", "M00")
        if follows.get(through) != f"ps/S_AXI_HP{number}_FPD":
            out.append(f"kernel/m_axi_hp{number} ends at {follows.get(through)}")
    addresses = [c for c in found if c[0] == "assign_bd_address"]
    spaces = {c[c.index("-target_address_space") + 1] for c in addresses}
    if len(addresses) not in (5, 9) or len(spaces) != 5:  # the registers, and for each port one part of the DDR or two
        out.append(f"addresses of {sorted(spaces)}")
    return out


@pytest.mark.parametrize("name", board.names())
def test_the_design_is_whole(
    source: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, name: str
) -> None:
    facts, found = board.find(name), calls(source(name=name))
    assert faults(found) == []
    settings = {c[2].removeprefix("CONFIG."): c[3] for c in found if c[0] == "setting" and c[1] == "ps"}
    for port in range(2, 6):
        assert settings[f"PSU__USE__S_AXI_GP{port}"] == "1"
        assert settings[f"PSU__SAXIGP{port}__DATA_WIDTH"] == "128"
    assert settings["PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"] == "300"
    assert ["create_bd_cell", "-type", "ip", "-vlnv", registers.VLNV, "kernel"] in found
    assert ["create_bd_cell", "-type", "ip", "-vlnv", "xilinx.com:ip:zynq_ultra_ps_e:3.5", "ps"] in found  # the newest
    (control,) = [c for c in found if c[0] == "assign_bd_address" and "-offset" in c]
    assert int(control[2], 0) == facts.registers.base
    assert int(control[4]) == registers.SPAN
    (project,) = [c for c in found if c[0] == "create_project"]
    assert facts.part in project
    order = [c[0] for c in found]
    steps = ["create_bd_design", "validate_bd_design", "save_bd_design", "make_wrapper", "launch_runs", "open_run"]
    assert [order.index(s) for s in steps] == sorted(order.index(s) for s in steps)
    for name in vivado.REPORTS:
        assert [f"report_{name.removesuffix('.rpt')}", "-file", str(tmp_path / "work" / name)] in found
    assert (tmp_path / "work" / "edgemtl.bit").is_file()
    assert (tmp_path / "work" / "edgemtl.hwh").is_file()


def test_pins_are_those_of_the_kernel() -> None:
    """The stubs' kernel has the buses that the pragmas of hls/src/top.cpp make."""
    source = (HLS / "src" / "top.cpp").read_text()
    bundles = set(re.findall(r"interface m_axi port = \w+ bundle = (\w+)", source))
    (inputs,) = re.findall(r"edgemtl_top \{(ap_clk[^}]*)\}", STUBS.read_text())
    assert set(inputs.split()) == {"ap_clk", "ap_rst_n", *(re.findall(r"interface ap_none port = (\w+)", source))}
    (buses,) = re.findall(r"edgemtl_top \{(s_axi_control[^}]*)\}", STUBS.read_text())
    assert set(buses.split()) == {"s_axi_control", *(f"m_axi_{b}" for b in bundles)}


BROKEN = [
    ("foreach port {0 1 2 3} pin", "foreach port {0 1 2} pin", "edgemtl_top has no pin m_axi_hp"),
    ("reset/slowest_sync_clk kernel/ap_clk", "reset/slowest_sync_clk", None),
    ("kernel/ap_rst_n to_control", "to_control", None),
    ("lappend clocked to_hp", "lappend clocked to_hp$port/aclk to_hp", None),
    ("ps/saxihp0_fpd_aclk", "ps/saxihp0_fpd_aclk ps/saxihp0_fpd_aclk", None),
    ("[get_bd_pins reset/peripheral_aresetn]", "[get_bd_pins $system(clock)]", None),
    ("ps/S_AXI_HP1_FPD", "ps/S_AXI_HP0_FPD", None),
    ("path $system(control) to_control kernel/s_axi_control", "", None),
    ("foreach port {0 1 2 3} segments", "foreach port {0 0 0 0} segments", None),
    ("connect_bd_net [get_bd_pins counter/Q] [get_bd_pins kernel/cycle]", "", None),
    ("kernel/ap_clk counter/CLK", "kernel/ap_clk", None),
    ("CONFIG.Output_Width", "CONFIG.Width", "c_counter_binary has no setting CONFIG.Width"),
    ("validate_bd_design", "validate_design", "invalid command name"),
    ("kernel/m_axi_hp$port", "kernel/m_axi_gmem$port", "edgemtl_top has no pin m_axi_gmem0"),
    ("ps/S_AXI_HP0_FPD", "ps/S_AXI_HPC0_FPD", "zynq_ultra_ps_e has no pin S_AXI_HPC0_FPD"),
    ("DATA_WIDTH 128", "DATAWIDTH 128", "has no setting CONFIG.PSU__SAXIGP2__DATAWIDTH"),
    ("-target_address_space", "-target_space", "assign_bd_address has no option -target_space"),
    ("$given(kernel) kernel", "$given(kernel)x kernel", "there is no IP edgemtl:hls:edgemtl_top:2.0x"),
    ("[newest smartconnect]", "[newest axi_smartconnect]", "this Vivado has no IP axi_smartconnect"),
    ("kernel/s_axi_control/Reg", "kernel/s_axi_ctrl/Reg", "no address segment kernel/s_axi_ctrl/Reg"),
    ("-to_step write_bitstream", "-step write_bitstream", "launch_runs has no option -step"),
    (
        "connect_bd_intf_net [get_bd_intf_pins $from]",
        "connect_bd_intf_net [get_bd_intf_pins $to]",
        "no master and slave",
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN, ids=range(len(BROKEN)))
def test_a_broken_copy_fails(
    source: Callable[..., subprocess.CompletedProcess[str]], old: str, new: str, message: str | None
) -> None:
    done = source((old, new))
    if message is None:
        assert faults(calls(done)) != []
    else:
        assert done.returncode
        assert message in done.stderr


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({"PROGRESS": "40%", "STATUS": "place_design ERROR"}, "implementation failed: place_design ERROR"),
        ({"STATS.WNS": "-0.4"}, "timing is not met at 300 MHz: worst slack -0.4 ns; try make zcu104 CLOCK=250"),
    ],
)
def test_a_build_that_fails(
    source: Callable[..., subprocess.CompletedProcess[str]], properties: dict[str, str], message: str
) -> None:
    done = source(**properties)
    assert done.returncode
    assert message in done.stderr


def test_a_missing_argument(source: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert "design.tcl needs the argument clock" in source(without="clock").stderr


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with an exported IP, and a Vivado on PATH that leaves a virtual board's files and real reports."""
    monkeypatch.setattr(vitis_cli, "ROOT", tmp_path)
    (tmp_path / "hls" / "src").mkdir(parents=True)
    exported = tmp_path / "build" / "vitis" / "zcu104" / "top" / "work" / "ip"
    exported.mkdir(parents=True)
    (exported / "component.xml").touch()
    (exported.parents[1] / "synthesised").touch()
    made = virtual_files.write(tmp_path / "made")
    tool = tmp_path / "bin" / "vivado"
    tool.parent.mkdir()
    copies = "".join(f"/bin/cp {REPORTS / n} {n}\n" for n in vivado.REPORTS)
    tool.write_text(
        '#!/bin/sh\ncase "$1" in -version) echo "vivado v2025.2 (64-bit)"; exit 0;; esac\n'
        f'echo "$*" > {tmp_path}/log\n/bin/cp {made} {made.with_suffix(".hwh")} .\n{copies}[ ! -e {tmp_path}/fail ]\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent))
    monkeypatch.setattr("sys.argv", ["vitis_cli", "bitstream", "zcu104", "250"])
    return tmp_path


def test_from_ip_to_bitstream(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert vitis_cli.main() == 0, capsys.readouterr().err
    found = bitstream.open_bitstream(checkout / "build" / "zcu104" / "edgemtl.bit")
    assert (found.record.clock_hz, found.record.tool) == (250e6, "Vivado 2025.2")
    said = (checkout / "log").read_text().split()
    assert said[:5] == ["-mode", "batch", "-notrace", "-source", str(checkout / "bitstreams" / "design.tcl")]
    given = dict(zip(said[6::2], said[7::2], strict=True))
    assert (given["clock"], given["kernel"], given["board"]) == ("250", registers.VLNV, "xilinx.com:zcu104:part0:1.1")
    assert Path(given["ip"]).parts[-6:] == ("build", "vitis", "zcu104", "top", "work", "ip")
    report = json.loads((checkout / "build" / "zcu104" / "reports.json").read_text())
    assert report["origin"] == "vivado"
    assert {r["name"] for r in report["resources"]} >= {"LUT", "FF"}


def test_what_stops_it(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (checkout / "fail").touch()
    assert vitis_cli.main() == 2
    assert "the bitstream was not built: vivado ended with 1; see above and" in capsys.readouterr().err
    (checkout / "fail").unlink()
    stale = checkout / "made" / "edgemtl.hwh"
    stale.write_text(virtual_files.hwh(board.find(), ARGUMENTS[::-1]))
    assert vitis_cli.main() == 2
    assert "Vivado's files cannot be used: " in capsys.readouterr().err
    next((checkout / "build").rglob("component.xml")).unlink()
    with pytest.raises(CompileError, match="no exported IP: type make -C bitstreams export"):
        vivado.build(vitis_cli.job("top"), FLOW / "design.tcl", tmp_path, 300)
    tool = checkout / "bin" / "vivado"
    tool.write_text(tool.read_text().replace("2025.2", "2020.1"))
    assert vitis_cli.main() == 2
    assert "Vivado is missing: vivado 2020.1 is older than 2022.2" in capsys.readouterr().err
    for clock, message in (("fast", "CLOCK takes a number of MHz"), ("7", "may be 50 to 333"), ("1000", "given 1000")):
        monkeypatch.setattr("sys.argv", ["vitis_cli", "bitstream", "zcu104", clock])
        assert vitis_cli.main() == 2
        assert message in capsys.readouterr().err


def test_the_clock_is_the_one_that_is_read() -> None:
    """What the handoff's reader takes for the clock is what the script sets."""
    assert handoff.CLOCK.replace("ACT_FREQMHZ", "FREQMHZ") in (FLOW / "zynq_ultrascale.tcl").read_text()
