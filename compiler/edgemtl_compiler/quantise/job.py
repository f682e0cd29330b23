"""The INT8 part of a compilation: calibrate, build, measure, send layers back to float where a task loses too much."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemtl.bundle.checkpoint import State
from edgemtl.bundle.manifest import FloatLayer, Quantisation
from edgemtl.config import ModelConfig
from edgemtl.errors import CompileError
from edgemtl_compiler import goldens, precision, programs
from edgemtl_compiler.family import Made
from edgemtl_compiler.precision import Weights
from edgemtl_compiler.quantise import accuracy
from edgemtl_compiler.quantise.calibrate import MIN_IMAGES, calibrate
from edgemtl_compiler.quantise.cpu import Quantised, quantise
from edgemtl_compiler.quantise.fake_int8 import FakeInt8
from edgemtl_compiler.quantise.pictures import pictures

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
    """A quantised model, the float one's state, the pictures' `source` and number, and what will judge it."""

    quantised: Quantised
    state: State
    images: int
    source: str
    judge: accuracy.Judge


def prepare(config: ModelConfig, state: State, folder: Path, count: int, limit: int, report: Report) -> Prepared:
    """Calibrate a model on `count` pictures of `folder`, to be judged on up to `limit` images.

    Raises DataError for a folder or picture that cannot be read, and CompileError for fewer pictures than asked for or
    than calibration needs, and for values that are not finite.
    """
    report("calibrating")
    images = pictures(folder, config, count).images
    if MIN_IMAGES <= len(images) < count:
        raise CompileError(
            f"{folder} holds {len(images)} pictures to calibrate on, not {count}: add --images {len(images)}"
        )
    quantised = quantise(config, state, calibrate(config, state, images))
    source = "synthetic rooms" if (folder / "rooms.json").exists() else folder.resolve().name
    return Prepared(quantised, state, len(images), source, accuracy.Judge(config, state, folder, limit, report))


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
        errors, tolerance = _check(quantised, without, weights, made, given, golden)
        found = _measure(judge, quantised, without, weights, made)
        if not accuracy.beyond(found) or len(without) == len(quantised.units):
            break
        ranking = ranking or accuracy.rank(judge, quantised)
        without = accuracy.float_units(judge, quantised, ranking, len(without) + 1)
    kept = _float_layers(quantised, without)
    cost = Quantisation(images=prepared.images, calibrated_on=prepared.source, accuracy=found, float_layers=kept)
    return Finished(weights, made, errors, tolerance, cost)


def _check(
    quantised: Quantised,
    without: Sequence[str],
    weights: Weights,
    made: Sequence[Made],
    given: goldens.Inputs,
    golden: goldens.Outputs,
) -> tuple[dict[str, dict[str, float]], float]:
    """Hold the programs to the INT8 reference; errors against float, and the tolerance that follows from them."""
    fake = FakeInt8(quantised.config, weights.parts, quantised.codes(without))
    expected: goldens.Outputs = {task: {} for task in golden}
    for number, image in given.items():
        for task, (value,) in fake(image).items():
            expected[task][number] = value
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
