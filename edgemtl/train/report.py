"""What a run tells: a progress bar on a terminal, plain lines elsewhere, and a JSONL log that can be continued."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from edgemtl.config import ModelConfig
from edgemtl.errors import ConfigError
from edgemtl.model.gates import Routing
from edgemtl.train.tensorboard import Board

COLLAPSED = 0.005  # share of tokens below which an expert of a path counts as unused


class Log:
    """Append-only `log.jsonl`; one object per line, with a `type`. Without a path nothing is written.

    `board` is told everything too.
    """

    def __init__(self, path: Path | None, keep: int = 0, board: Board | None = None) -> None:
        self._file, self._board = None, board
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = open(path, "ab")  # noqa: SIM115
            except OSError as e:
                raise ConfigError(f"{path} cannot be written ({e.strerror or e}); give another --out") from None
            self._file.truncate(min(keep, self._file.tell()))

    def write(self, type: str, **entry: Any) -> None:
        if self._file:
            self._file.write(json.dumps({"type": type, **entry}).encode() + b"\n")
            self._file.flush()
        if self._board:
            self._board.write(type, entry)

    @property
    def size(self) -> int:
        return self._file.seek(0, 2) if self._file else 0

    def close(self) -> None:
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()


class Reporter:
    """Progress of the stages. A bar when the console is a terminal, else a line per log interval."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self.console) if self.console.is_terminal else None
        self._live = Live(self._bar, console=self.console, refresh_per_second=2) if self._bar else None
        self._task: Any = None
        self._started, self._steps, self._done, self._images = time.monotonic(), 0, 0, 0
        self._name = ""

    def __enter__(self) -> Reporter:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stage(self, name: str, done: int, steps: int) -> None:
        self._name, self._steps, self._done, self._images = name, steps, 0, 0
        self._started = time.monotonic()
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(name, total=steps, completed=done)

    def step(self, images: int) -> None:
        self._done, self._images = self._done + 1, self._images + images
        if self._bar:
            self._bar.advance(self._task)

    @property
    def rate(self) -> float:
        """Images per second in this stage since this process entered it."""
        return self._images / max(1e-9, time.monotonic() - self._started)

    def losses(self, step: int, losses: Mapping[str, float]) -> None:
        text = " ".join(f"{k} {v:.4g}" for k, v in losses.items()) + f" | {self.rate:.1f} images/s"
        if self._live and self._bar:
            self._live.update(Group(self._bar, Text(text)))
            return
        left = (time.monotonic() - self._started) / max(1, self._done) * (self._steps - step)
        self.line(f"{self._name} {step}/{self._steps} {text}, {left / 60:.1f} min left")


def expert_usage(routings: Mapping[tuple[str, int], Routing], config: ModelConfig) -> dict[str, dict[str, list[float]]]:
    """{task: {block: share of the tokens that chose each expert [E]}}; a single gate's task is called "shared"."""
    usage: dict[str, dict[str, list[float]]] = {}
    for (task, block), routing in routings.items():
        counts = torch.bincount(routing.expert.flatten(), minlength=routing.prob.shape[-1])
        share = (counts.double() / max(1, len(routing.expert))).tolist()
        name = "shared" if config.gate == "single" else task
        usage.setdefault(name, {})[str(block)] = [round(s, 5) for s in share]
    return usage


def collapsed(usage: Mapping[str, Mapping[str, list[float]]], config: ModelConfig) -> list[str]:
    """One warning per task and block with experts of the path that fewer than 0.5 % of the tokens chose."""
    warnings = []
    for task, blocks in usage.items():
        path = config.path(task)
        for block, share in blocks.items():
            which = config.moe_blocks.index(int(block))
            idle = [e for e in path[which] if share[e] < COLLAPSED]
            if idle:
                names = ", ".join(map(str, idle))
                warnings.append(f"{task}, block {block}: fewer than 0.5 % of the tokens chose expert(s) {names}")
    return warnings
