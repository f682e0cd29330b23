"""Vivado's reports after implementation: report_utilization, report_timing_summary, report_power."""

from __future__ import annotations

import re

from edgemtl.errors import CompileError
from edgemtl_compiler.fpga.estimate.schema import Clock, Origin, Power, Report
from edgemtl_compiler.fpga.reports.text import field, number, resource, rows

ORIGIN: Origin = "vivado"
SITES = {  # as UltraScale+ devices name them
    "CLB LUTs": "LUT",
    "CLB Registers": "FF",
    "Block RAM Tile": "BRAM36",
    "URAM": "URAM",
    "DSPs": "DSP",
}
CLOCK = "clk_pl_0"  # the processing system's clock to the fabric


def _head(text: str, name: str) -> dict[str, str]:
    """The box that begins every report."""
    return {
        "subject": field(text, r"^\| Design[ \t]*:[ \t]*(\S{1,200})", "design", name),
        "part": field(text, r"^\| (?:Device|Part)[ \t]*:[ \t]*(\S{1,60})", "device", name),
        "tool": "Vivado " + field(text, r"^\| Tool Version[ \t]*:[ \t]*Vivado v\.(\S{1,40})", "version", name),
    }


def utilisation(text: str, name: str) -> Report:
    """LUT, FF, BRAM36, URAM288 and DSP48E2, used and available."""
    columns: list[str] = []
    found = {}
    for cells in rows(text):
        if cells and cells[0] == "Site Type":
            columns = cells
            continue
        if len(cells) != len(columns) or not cells:
            continue
        row, site = dict(zip(columns, cells, strict=True)), cells[0].rstrip("*")
        if site in SITES and site not in found and "Used" in row:
            made = resource(SITES[site], row["Used"], row.get("Available"), name, ORIGIN)
            if made is not None:
                found[site] = made.model_copy(update={"source": site})
    missing = [site for site in SITES if site not in found]
    if missing:
        raise CompileError(
            f"{name}: is cut short or of another device family: it has no figure of {', '.join(missing)}"
        )
    return Report(**_head(text, name), origin=ORIGIN, resources=tuple(found.values()))


def timing(text: str, name: str) -> Report:
    """Worst slack, and the clock of the fabric; the period that is achieved is the requested one less the slack."""
    after = text[text.index("Design Timing Summary") :].splitlines()
    heads = next((i for i, line in enumerate(after) if line.split()[:1] == ["WNS(ns)"]), None)
    values = [] if heads is None else [line.split() for line in after[heads + 1 : heads + 4]]
    numbers = next((v for v in values if v and not v[0].startswith("--")), None)
    if numbers is None:
        raise CompileError(f"{name}: is cut short: its design timing summary has no figures")
    slack = number(numbers[0], "WNS(ns)", name)
    if slack is None:
        raise CompileError(f"{name}: has no worst slack: the design had no clock constraint")
    clocks = {
        clock: number(period, f"period of {clock}", name)
        for clock, period in re.findall(
            r"^[ \t]*(\S{1,100})[ \t]+\{[^}\n]{1,80}\}[ \t]+(\S{1,30})[ \t]+\S+", text, re.M
        )
    }
    named = CLOCK if CLOCK in clocks else min(clocks, key=lambda c: clocks[c] or 1e9, default="")
    period = clocks.get(named)
    if not period or period < 0:
        raise CompileError(f"{name}: is cut short: its clock summary is missing")
    met = "met" if slack >= 0 else "not met"
    return Report(
        **_head(text, name),
        origin=ORIGIN,
        clock=Clock(requested_hz=1e9 / period, estimated_period_ns=period - slack, slack_ns=slack, origin=ORIGIN),
        notes=(f"timing {met}: worst slack of all clocks {slack:g} ns, clock {named}",),
    )


def power(text: str, name: str) -> Report:
    """Watts that Vivado estimates, with its confidence."""
    figures = {cells[0]: cells[1] for cells in rows(text) if len(cells) == 2}
    total = number(figures.get("Total On-Chip Power (W)", "").split("(")[0], "total power", name)
    if total is None or total < 0:
        raise CompileError(f"{name}: is cut short: it has no total power")
    return Report(
        **_head(text, name),
        origin=ORIGIN,
        power=Power(total_w=total, dynamic_w=number(figures.get("Dynamic (W)"), "dynamic power", name), origin=ORIGIN),
        notes=(f"power is an estimate of the tool, confidence {figures.get('Confidence Level', 'not said')[:40]}",),
    )
