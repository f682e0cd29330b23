"""The INT8 part of a compilation: calibrate, build, measure, send layers back to float where a task loses too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemtl.bundle.checkpoint import State
from edgemtl.bundle.manifest import FloatLayer, Quantisation
from edgemtl.config import ModelConfig
from edgemtl_compiler import goldens, precision, programs
from edgemtl_compiler.family import Made
from edgemtl_compiler.precision import Weights
from edgemtl_compiler.quantise import accuracy
from edgemtl_compiler.quantise.cpu import Quantised, quantise
from edgemtl_compiler.quantise.fake_int8 import FakeInt8
from edgemtl_compiler.quantise.ranges import Calibration

CLOSE = 0.05  # of a program against the INT8 reference: rare values on a rounding boundary go the other way
LEAST_TOLERANCE = 1e-3
ROOM = 2.0  # goldens' tolerance: so many times what was measured

Build = Callable[[Weights], list[Made]]
Report = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """What the bundle gets. errors: target -> task -> relative error against the expected maps."""

    weights: Weights
    made: list[Made]
    errors: dict[str, dict[str, float]]
    tolerance: float
    report: Quantisation | None = None


@dataclass(frozen=True)
class Prepared:
    """A quantised model, the float one's state, whence its ranges are; what will judge it, if there are pictures."""

    quantised: Quantised
    state: State
    calibration: Calibration
    judge: accuracy.Judge | None


def prepare(
    config: ModelConfig, state: State, calibration: Calibration, folder: Path | None, limit: int, report: Report
) -> Prepared:
    """Quantise a model by its ranges, to be judged on up to `limit` images of `folder`.

    Raises DataError for a folder or picture that cannot be read.
    """
    judge = accuracy.Judge(config, state, folder, limit, report) if folder else None
    return Prepared(quantise(config, state, calibration.ranges), state, calibration, judge)


def run(prepared: Prepared, build: Build, given: goldens.Inputs, golden: goldens.Outputs, report: Report) -> Finished:
    """Build with `build` until the rule holds, and measure.

    Raises CompileError for a program that differs from the INT8 reference.
    """
    quantised, judge = prepared.quantised, prepared.judge
    without: list[str] = []
    ranking: list[str] = []
    while True:
        weights = precision.int8(quantised.config, prepared.state, quantised, without)
        made = build(weights)
        report("checking")
        expected = _expected(quantised, without, weights, given)
        errors, tolerance = _check(expected, weights, made, given, golden)
        if judge is None:
            found = accuracy.of_goldens(quantised.config, expected, golden)
            break
        found = _measure(judge, quantised, without, weights, made)
        if not accuracy.beyond(found) or len(without) == len(quantised.units):
            break
        ranking = ranking or accuracy.rank(judge, quantised)
        without = accuracy.float_units(judge, quantised, ranking, len(without) + 1)
    kept = _float_layers(quantised, without)
    used = prepared.calibration
    cost = Quantisation(images=used.images, calibrated_on=used.about, accuracy=found, float_layers=kept)
    return Finished(weights, made, errors, tolerance, cost)


def _expected(quantised: Quantised, without: Sequence[str], weights: Weights, given: goldens.Inputs) -> goldens.Outputs:
    """The INT8 reference's maps."""
    fake = FakeInt8(quantised.config, weights.parts, quantised.codes(without))
    expected: goldens.Outputs = {task: {} for task in quantised.config.task_names}
    for number, image in given.items():
        for task, (value,) in fake(image).items():
            expected[task][number] = value
    return expected


def _check(
    expected: goldens.Outputs,
    weights: Weights,
    made: Sequence[Made],
    given: goldens.Inputs,
    golden: goldens.Outputs,
) -> tuple[dict[str, dict[str, float]], float]:
    """Hold the programs to the INT8 reference; errors against float, and the tolerance that follows from them."""
    errors = {}
    for one in made:
        programs.check(one, weights.parts, given, expected, CLOSE)
        errors[one.program.target] = programs.check(one, weights.parts, given, golden, float("inf"))
    seen = [e for by_task in errors.values() for e in by_task.values()]
    seen += [goldens.error(expected[task][n], want) for task, maps in golden.items() for n, want in maps.items()]
    return errors, min(0.5, max(LEAST_TOLERANCE, ROOM * max(seen)))


def _measure(
    judge: accuracy.Judge, quantised: Quantised, without: Sequence[str], weights: Weights, made: Sequence[Made]
) -> accuracy.Accuracies:
    """By a program that runs here, else by the INT8 reference."""
    one = next((m for m in made if m.runs_here), None)
    if one is None:
        return judge.accuracies(accuracy.fake_predictor(quantised, without), accuracy.FAKE, 4)
    predictor = one.predictor(weights.parts, quantised.config.task_names)
    return judge.accuracies(predictor, f"measured, {one.program.target} program")


def _float_layers(quantised: Quantised, without: Sequence[str]) -> tuple[FloatLayer, ...]:
    reason = f"INT8 here would cost a task more than {accuracy.GOAL:.0%} of its metric"
    back = [tuple(u.codes) for u in quantised.units if u.name in without]
    always = FloatLayer(weights=accuracy.never(quantised), reason="there is no INT8 kernel for it")
    return (*(FloatLayer(weights=layer, reason=reason) for layer in back), always)
