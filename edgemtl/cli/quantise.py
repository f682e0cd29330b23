"""`edgemtl quantise`: what the accelerator's integers cost a checkpoint, per task and layer."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemtl.cli import _text
from edgemtl.errors import CompileError

if TYPE_CHECKING:
    from edgemtl.train.evaluate import Loss
    from edgemtl_compiler.fpga.report import TaskReport

GOAL = 0.01  # relative loss of a task's metric
COMPARED = 8  # images for the errors per layer, which settle quickly


def quantise(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors), as `edgemtl train` writes it.")],
    calibrate: Annotated[Path, typer.Option(help="A data set in the NYUD_MT layout, a folder of images, or a video.")],
    images: Annotated[int, typer.Option(help="Calibrate on so many images, evenly spaced; 32 or more.")] = 64,
    evaluate: Annotated[int, typer.Option(min=0, help="Score so many labelled images; 0 for none.")] = 200,
    percentile: Annotated[float, typer.Option(help="Clip q, k, v and attention's output at this percentile.")] = 100.0,
    host_heads: Annotated[
        bool, typer.Option("--host-heads", help="End with the trunk's tokens; heads stay in float on the host.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Quantise a checkpoint for the accelerator and report its accuracy beside the float model's.

    A data set is calibrated on its train split and scored on its val split. A folder without labels gives the raw
    maps' error alone.
    """
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("edgemtl_compiler") is None:
        raise CompileError("quantising needs PyTorch and the compiler: pip install 'edgemtl[compile]'")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    report = measure(checkpoint, calibrate, images, evaluate, percentile, host_heads=host_heads)
    if json:
        _text.as_json(report)
    else:
        _print(report)


def measure(
    checkpoint: Path, folder: Path, images: int, scored: int, percentile: float = 100.0, *, host_heads: bool = False
) -> dict[str, Any]:
    """The whole report. Raises what reading the checkpoint and the images and quantising raise."""
    from edgemtl.bundle.checkpoint import read_checkpoint
    from edgemtl.bundle.deployable import deployable
    from edgemtl.data.layout import find_layout
    from edgemtl.model.checkpoint import model_of
    from edgemtl.train.data import open_data, spread
    from edgemtl_compiler.fpga.network import graph_of
    from edgemtl_compiler.fpga.report import accuracy, compare, pixels
    from edgemtl_compiler.quantise.calibrate import calibrate
    from edgemtl_compiler.quantise.fpga import quantise as make
    from edgemtl_compiler.quantise.pictures import pictures

    console = _text.console(stderr=True)
    info, state = read_checkpoint(checkpoint)
    config, state = deployable(info.config, state)
    model = model_of(config, state)
    graph_of(config, config.task_names[0], host_heads)  # refuses what the accelerator lacks
    seen = pictures(folder, config, max(images, 1))
    with console.status(f"quantising, calibrated on {len(seen.images)} images") as status:
        ranges = calibrate(config, state, seen.images)
        network = make(config, state, ranges, percentile=percentile, host_heads=host_heads)
        metrics: dict[str, Loss] = {}
        shown, unseen = seen.images, False
        if seen.labelled and scored:
            data = open_data(folder, "val", config)
            scored = min(scored, len(data))
            unseen, shown = True, pixels(data.batch(spread(data, COMPARED))["image"], config)
            metrics = accuracy(
                model, network, data, scored, lambda what, done, of: status.update(f"{what}: {done} of {of} images")
            )
        elif not seen.labelled and scored:
            unseen, shown = _unseen(folder, config, len(seen.images))
        status.update("comparing layer by layer")
        layers = {t: compare(model, network, shown[:COMPARED], t) for t in config.task_names}
    return {
        "checkpoint": str(checkpoint),
        "data": find_layout(folder).about(folder).title if seen.labelled else str(folder),
        "calibrated_on": len(seen.images),
        "scored_on": scored if metrics else 0,
        "compared_on": min(COMPARED, len(shown)),
        "compared_images": "not calibrated on" if unseen else "calibrated on",
        "head": "host, float" if host_heads else "accelerator",
        "goal": GOAL,
        "origin": {"float": "measured, PyTorch", "int8": "measured, integer NumPy reference (bit-equal to csim)"},
        "tasks": {task: _facts(layers[task], metrics.get(task)) for task in config.task_names},
    }


def _unseen(folder: Path, config: Any, used: int) -> tuple[bool, Any]:
    """Images of an unlabelled folder that calibration skipped, if there are any; else some that it used."""
    from edgemtl_compiler.quantise.pictures import pictures

    every = pictures(folder, config, 10**9).images
    rest = sorted(set(range(len(every))) - {i * len(every) // used for i in range(used)})
    return bool(rest), every[rest] if rest else every


def _facts(report: TaskReport, loss: Loss | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "raw_map_error": report.raw,
        "cosine": report.cosine,
        "error_grows_most": report.worst,
        "layers": report.layers,
    }
    if loss is not None:
        facts |= {"metric": loss.metric, "float": loss.before, "int8": loss.after, "relative_loss": loss.relative}
        facts["within_goal"] = loss.relative <= GOAL
    return facts


def _print(report: dict[str, Any]) -> None:
    console = _text.console()
    console.print(
        _text.clean(
            f"{Path(report['checkpoint']).name} in INT8 for the accelerator, calibrated on {report['calibrated_on']} "
            f"images of {report['data']}; head: {report['head']}"
        ),
        soft_wrap=True,
    )
    scored = report["scored_on"] > 0
    columns = ["task", "metric", "float", "INT8", "loss"] if scored else ["task"]
    rows = []
    for task, facts in report["tasks"].items():
        row = [task]
        if scored:
            good = "" if facts["within_goal"] else " !"
            row += [_name(facts["metric"]), f"{facts['float']:.4f}", f"{facts['int8']:.4f}"]
            row.append(f"{facts['relative_loss']:+.2%}{good}")
        most = facts["error_grows_most"]
        rows.append([*row, f"{facts['raw_map_error']:.2%}", f"{most} ({facts['layers'][most]:.2%})"])
    console.print(_text.table([*columns, "map error", "stream error grows most after"], rows))
    compared = f"{report['compared_on']} images {report['compared_images']}"
    if scored:
        beyond = [t for t, f in report["tasks"].items() if not f["within_goal"]]
        goal = f"beyond the goal of {GOAL:.0%}: {', '.join(beyond)}" if beyond else f"all within the goal of {GOAL:.0%}"
        text = f"Metrics on {report['scored_on']} val images: {goal}. Errors: RMS, relative, {compared}."
    else:
        text = f"No labels, so no metrics. Errors: RMS, relative to float, {compared}."
    console.print(text, soft_wrap=True)
    console.print(
        "float: PyTorch; INT8: integer NumPy reference, which C simulation equals bit for bit", soft_wrap=True
    )


def _name(metric: str) -> str:
    from edgemtl.train.evaluate import main_metrics

    return main_metrics()[metric][0]
