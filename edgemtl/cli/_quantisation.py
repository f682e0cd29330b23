"""How a bundle's precision and its cost are shown, by `compile` and by `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemtl.bundle.manifest import Quantisation
from edgemtl.cli import _text

WORDS = {
    "panel16-f32": "float32",
    "panel16-f16": "linear layers and experts stored as float16, arithmetic in float32",
    "panel16-bf16": "linear layers and experts stored as bfloat16, sums in float32",
    "panel16-i8": "linear layers and experts in INT8",
}
GOAL = 0.01  # relative loss of a task's metric


def show(report: Quantisation) -> None:
    """The table per task, and which layers stayed float and why."""
    console = _text.console()
    console.print(_text.clean(f"INT8, calibrated on {report.images} images of {report.calibrated_on}"), soft_wrap=True)
    rows = [
        (
            task,
            a.metric if a.metric != "agreement" else "agreement with float",
            f"{a.float32:.4f}",
            f"{a.int8:.4f}",
            f"{a.loss:+.2%}{'' if a.loss <= GOAL else ' !'}",
        )
        for task, a in report.accuracy.items()
    ]
    console.print(_text.table(("task", "metric", "float", "INT8", "relative loss"), rows, 3))
    for origin, images in sorted({(a.origin, a.images) for a in report.accuracy.values()}):
        console.print(_text.clean(f"over {images} images; float: measured; INT8: {origin}"), soft_wrap=True)
    for layer in report.float_layers:
        few = ", ".join(layer.weights[:2]) + (f" and {len(layer.weights) - 2} more" if len(layer.weights) > 2 else "")
        console.print(_text.clean(f"float32: {few}: {layer.reason}"), soft_wrap=True)
