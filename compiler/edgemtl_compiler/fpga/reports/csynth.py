"""Vitis HLS synthesis reports: `csynth.xml` (and `TOP_csynth.xml`), and `TOP_csynth.rpt`.

XML is read by edgemtl/safe_xml.py: entities can neither expand nor name files.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element

from edgemtl.errors import CompileError
from edgemtl.safe_xml import tree
from edgemtl_compiler.fpga.estimate.schema import Clock, Loop, Origin, Report, Resource, Timing, Unit
from edgemtl_compiler.fpga.reports.text import count, field, number, resource, rows

ORIGIN: Origin = "vitis-hls csynth"
AVAILABLE = {"BRAM_18K": "AVAIL_BRAM", "DSP": "AVAIL_DSP", "FF": "AVAIL_FF", "LUT": "AVAIL_LUT", "URAM": "AVAIL_URAM"}
LOOP_FIELDS = {"TripCount", "Latency", "PipelineII", "PipelineDepth", "IterationLatency"}


def from_xml(text: str, name: str) -> Report:
    """The report in an XML file's text; raises CompileError."""
    root = tree(text, name, "csynth report", CompileError)
    if root.tag != "profile":
        raise CompileError(f"{name}: its outer element is <{root.tag[:40]}>, not <profile>: no csynth report")
    part = _text(root, "UserAssignments/Part", name)
    latency = root.find("PerformanceEstimates/SummaryOfOverallLatency")
    loops = root.find("PerformanceEstimates/SummaryOfLoopLatency")
    used, available = root.find("AreaEstimates/Resources"), root.find("AreaEstimates/AvailableResources")
    if used is None:
        raise CompileError(f"{name}: is cut short or of another tool: it has no AreaEstimates")
    return _report(
        name,
        subject=_text(root, "UserAssignments/TopModelName", name),
        part=part,
        version=root.findtext("ReportVersion/Version") or "",
        period=_text(root, "UserAssignments/TargetClockPeriod", name),
        estimated=root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod"),
        cycles=None if latency is None else latency.findtext("Worst-caseLatency"),
        interval=None if latency is None else latency.findtext("Interval-max"),
        loops=() if loops is None else tuple(_loops(loops, "", name)),
        resources={t: (used.findtext(t), None if available is None else available.findtext(t)) for t in AVAILABLE},
        units=tuple(_module(m, name) for m in root.iterfind("ModuleInformation/Module")),
    )


def from_rpt(text: str, name: str) -> Report:
    """The report in a text file; raises CompileError."""
    estimated, period = None, ""
    latency: list[str] = []
    loops: list[Loop] = []
    names: list[str] = []
    used: dict[str, str] = {}
    available: dict[str, str] = {}
    table = ""
    for cells in rows(text):
        if not cells:
            table = ""
        elif "Estimated" in cells and "Target" in cells:
            table = "clock"
        elif cells[0] == "Latency (cycles)":
            table = "latency"
        elif cells[0] == "Loop Name":
            table = "loops"
        elif cells[0] == "Name" and "BRAM_18K" in cells:
            names = cells
        elif table == "clock" and not period and len(cells) == 4:
            period, estimated = cells[1].removesuffix("ns"), cells[2].removesuffix("ns")
        elif table == "latency" and not latency and len(cells) == 7 and cells[0] != "min":
            latency = cells
        elif table == "loops" and len(cells) == 8:
            loops.append(_row_loop(cells, name))
        elif cells[0] in ("Total", "Available") and len(cells) == len(names):
            into = used if cells[0] == "Total" else available
            for key, value in zip(names, cells, strict=True):
                into.setdefault(key, value)
    if not period or not latency or not used:
        missing = "clock" if not period else "latency" if not latency else "utilisation"
        raise CompileError(f"{name}: is cut short: its summary of {missing} is missing")
    return _report(
        name,
        subject=field(text, r"^== Vitis HLS Report for '([^'\n]{1,200})'", "top function", name),
        part=field(text, r"^\* Target device:[ \t]*(\S{1,60})", "part", name),
        version=field(text, r"^\* Version:[ \t]*(\S{1,40})", "version", name),
        period=period,
        estimated=estimated,
        cycles=latency[1],
        interval=latency[5],
        loops=tuple(loops),
        resources={t: (used.get(t), available.get(t)) for t in AVAILABLE},
        units=(),
    )


def _report(
    name: str,
    *,
    subject: str,
    part: str,
    version: str,
    period: str,
    estimated: str | None,
    cycles: str | None,
    interval: str | None,
    loops: tuple[Loop, ...],
    resources: dict[str, tuple[str | None, str | None]],
    units: tuple[Unit, ...],
) -> Report:
    target = number(period, "target clock period", name)
    if not target or target < 0:
        raise CompileError(f"{name}: its target clock period is {period[:40]!r}, which must be above 0 ns")
    total, notes = (
        count(cycles, "latency", name),
        ["memory over m_axi answers at once in this report: DDR time is missing"],
    )
    if total is None:
        notes.append("latency is unknown to the tool: it depends on the data")
    found = [resource(t, u, a, name, ORIGIN) for t, (u, a) in resources.items()]
    timing = None
    if total is not None:
        between = count(interval, "interval", name)
        timing = Timing(cycles=total, milliseconds=total * target * 1e-6, interval_cycles=between, origin=ORIGIN)
    return Report(
        subject=subject,
        part=part,
        origin=ORIGIN,
        tool=f"Vitis HLS {version}".strip(),
        clock=Clock(
            requested_hz=1e9 / target,
            estimated_period_ns=number(estimated, "estimated clock period", name),
            origin=ORIGIN,
        ),
        timing=timing,
        loops=loops,
        units=units,
        resources=tuple(r for r in found if r is not None),
        notes=tuple(notes),
    )


def _text(root: Element, path: str, name: str) -> str:
    value = (root.findtext(path) or "").strip()
    if not value:
        raise CompileError(f"{name}: is cut short or of another tool: it has no {path}")
    return value[:200]


def _figure(element: Element, tag: str, name: str) -> int | None:
    """A loop's figure; a range counts by its greatest value."""
    found = element.find(tag)
    if found is None:
        return None
    return count(found.findtext("range/max") if found.find("range") is not None else found.text, tag, name)


def _loops(parent: Element, prefix: str, name: str) -> list[Loop]:
    out = []
    for element in parent:
        if element.tag in LOOP_FIELDS or element.find("TripCount") is None:
            continue
        own = f"{prefix}{element.findtext('Name') or element.tag}"[:200]
        out.append(
            Loop(
                name=own,
                latency=_figure(element, "Latency", name),
                interval=_figure(element, "PipelineII", name),
                iteration_latency=_figure(element, "PipelineDepth", name) or _figure(element, "IterationLatency", name),
                trip_count=_figure(element, "TripCount", name),
                origin=ORIGIN,
            )
        )
        out += _loops(element, f"{own}/", name)
    return out


def _module(module: Element, name: str) -> Unit:
    area = module.find("AreaEstimates/Resources")
    found: list[Resource | None] = []
    if area is not None:
        found = [resource(t, area.findtext(t), area.findtext(AVAILABLE[t]), name, ORIGIN) for t in AVAILABLE]
    return Unit(name=(module.findtext("Name") or "")[:200], resources=tuple(r for r in found if r is not None))


def _row_loop(cells: list[str], name: str) -> Loop:
    title, _, most, iteration, achieved, _, trips, _ = cells
    return Loop(
        name=title.lstrip("-+ "),
        latency=count(most, "loop latency", name),
        iteration_latency=count(iteration, "iteration latency", name),
        interval=count(achieved, "initiation interval", name),
        trip_count=count(trips, "trip count", name),
        origin=ORIGIN,
    )
