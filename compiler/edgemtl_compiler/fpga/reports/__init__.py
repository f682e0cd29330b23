"""Reports of Vitis HLS and Vivado as the JSON that `edgemtl estimate` writes, so that the two can be laid side by side.

    python -m edgemtl_compiler.fpga.reports csynth.xml
    python -m edgemtl_compiler.fpga.reports utilization.rpt timing_summary.rpt power.rpt

Formats: Vitis HLS 2022.2 to 2025.2 (`csynth.xml`, `TOP_csynth.rpt`); Vivado's report_utilization,
report_timing_summary and report_power.
The parsers have met the formats, not this design's reports: nothing here has been through the tools.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgemtl.errors import CompileError
from edgemtl_compiler.fpga.estimate.schema import Report
from edgemtl_compiler.fpga.reports import csynth, vivado
from edgemtl_compiler.fpga.reports.text import read_text, same_part

# What marks a kind of report, and who reads it; the first mark found decides.
KINDS: tuple[tuple[str, Callable[[str, str], Report]], ...] = (
    ("<profile", csynth.from_xml),
    ("== Vitis HLS Report for", csynth.from_rpt),
    ("Design Timing Summary", vivado.timing),
    ("Total On-Chip Power (W)", vivado.power),
    ("Site Type", vivado.utilisation),
)


def parse(path: Path) -> Report:
    """One report file; raises CompileError for what is no report, is cut short or holds impossible numbers."""
    text = read_text(path)
    for mark, reader in KINDS:
        if mark in text:
            return reader(text, str(path))
    raise CompileError(
        f"{path}: is no report of Vitis HLS or Vivado that edgemtl reads (csynth, utilisation, timing, power)"
    )


def merge(reports: Sequence[Report], names: Sequence[str]) -> Report:
    """Reports of one run as one: each figure may come from one file alone. Raises CompileError where two disagree."""
    first = reports[0]
    fields = first.model_dump()
    for report, name in zip(reports[1:], names[1:], strict=True):
        if report.origin != first.origin or not same_part(report.part, fields["part"]):
            raise CompileError(
                f"{name} is of {report.part} by {report.origin}, {names[0]} of {first.part} by {first.origin}: "
                "give reports of one run"
            )
        fields["part"] = max(fields["part"], report.part, key=len)  # the timing report leaves out the speed grade
        for key, value in report.model_dump(exclude={"part"}).items():
            if key == "notes":
                fields[key] = (*fields[key], *value)
            elif value and fields[key] and value != fields[key]:
                raise CompileError(f"{name} and an earlier file both give {key}, and differ: give reports of one run")
            elif value:
                fields[key] = value
    return Report(**fields)


def read(paths: Sequence[Path]) -> Report:
    """All files together."""
    if not paths:
        raise CompileError("no report was given; type python -m edgemtl_compiler.fpga.reports FILE …")
    return merge([parse(p) for p in paths], [str(p) for p in paths])
