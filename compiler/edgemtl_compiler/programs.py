"""The programs of a bundle run and held to expected maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgemtl.bundle.layout import Array
from edgemtl.config import ModelConfig
from edgemtl.graph.count import count
from edgemtl_compiler import goldens
from edgemtl_compiler.family import Made, Report
from edgemtl_compiler.precision import Parts

EMULATED = 40e9  # multiply-accumulates of all tasks that an emulation on a CPU has done in some minutes


def worth_emulating(config: ModelConfig) -> bool:
    """Whether emulating programs for GPUs would end in minutes; M3ViT at 480 x 640 takes half an hour or hours."""
    return sum(count(config, task).total for task in config.task_names) <= EMULATED


def check_all(
    made: Sequence[Made],
    parts: Parts,
    given: Mapping[str, Array],
    expected: goldens.Outputs,
    tolerance: float,
    report: Report,
    emulate: bool = True,
) -> dict[str, dict[str, float]]:
    """`check` of every program, by target; without `emulate` those that need the emulation are left out and have
    no errors. The emulation knows nothing of architectures: it runs for the first of them, whose plans are the others'.
    """
    errors: dict[str, dict[str, float]] = {}
    emulated: dict[str, float] | None = None
    for one in made:
        if one.emulated and not emulate:
            errors[one.program.target] = {}
            continue
        report(f"checking {one.program.target}{' in an emulation on the CPU, which is slow' if one.emulated else ''}")
        if not one.emulated:
            found = check(one, parts, given, expected, tolerance)
        else:
            found = emulated = emulated or check(one, parts, given, expected, tolerance)
        errors[one.program.target] = found
    return errors


def check(
    made: Made, parts: Parts, given: Mapping[str, Array], expected: goldens.Outputs, tolerance: float
) -> dict[str, float]:
    """The largest relative error of each task; none for a program that cannot run here. The emulation, which is slow,
    gets the first input only.

    Raises CompileError when one is above the tolerance.
    """
    if not made.runs_here:
        return {}
    run = made.runner(parts)
    worst = dict.fromkeys(expected, 0.0)
    for number, image in list(given.items())[: 1 if made.emulated else None]:
        maps = run(image, list(expected))
        for task, wanted in expected.items():
            what = f"the {made.program.target} program of {task!r}"
            limit = max(tolerance, made.program.tolerance)
            worst[task] = max(worst[task], goldens.check(what, maps[task], wanted[number], limit))
    if hasattr(run, "close"):
        run.close()
    return worst
