"""The log as TensorBoard event files, in `tensorboard/` of a run's folder: losses, rates, scores, expert usage.

Written by tensorboardX, which needs neither TensorBoard nor TensorFlow; read by `tensorboard --logdir runs`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgemtl.errors import ConfigError


class Board:
    """Takes the same entries as `report.Log`; `step` is where the run stands, and what was written after it is void."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "tensorboard: true needs tensorboardX, which is not installed; type: pip install 'edgemtl[train]'"
            ) from None
        # Files are named by the second: a run that goes on within it would write over what it wrote before.
        again = f".{len(list(folder.glob('*')))}"
        self._writer: Any = SummaryWriter(str(folder), purge_step=step + 1 if step else None, filename_suffix=again)

    def write(self, type: str, entry: dict[str, Any]) -> None:
        if type == "step":
            for name, value in entry["losses"].items():
                self._writer.add_scalar(f"loss/{name}", value, entry["step"])
            self._writer.add_scalar("rate/lr", entry["lr"], entry["step"])
            self._writer.add_scalar("rate/images_per_second", entry["images_per_second"], entry["step"])
        elif type == "eval":
            for task, score in entry["metrics"].items():
                for name, value in score.items():
                    if isinstance(value, int | float):
                        self._writer.add_scalar(f"eval/{task}/{name}", value, entry["step"])
        elif type == "usage":
            for task, blocks in entry["share"].items():
                for block, share in blocks.items():
                    self._writer.add_scalar(f"busiest_expert/{task}/block{block}", max(share), entry["step"])
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
