"""Which experts each patch chose: the routing that the program itself ran with, copied out by its tap.

    out, maps = trace(engine, frame)
    maps["depth"].experts[2]               # of the third MoE block: int [rows, columns, k], best choice first

Nothing is recomputed: every library of the tvm-cpu backend has a function `edgemtl_tap_routing` that makes its gates
copy their choices as well (a few kilobytes per frame; nothing while it is off).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgemtl.config import ModelConfig
from edgemtl.errors import BackendError
from edgemtl.media.preprocess import Colour, Geometry, Image
from edgemtl.runtime.engine import Engine
from edgemtl.runtime.output import Output

Ids = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ExpertMap:
    """One task's choices in one frame.

    blocks: indices of the MoE blocks. experts: [blocks, rows, columns, k] global expert ids over the patches of the
    network's input, best choice first; the class token, which is no patch, is left out. place: where in that input the
    frame lies.
    """

    task: str
    blocks: tuple[int, ...]
    experts: Ids
    place: Geometry
    origin: str = "measured: the routing the program ran with"


def obstacle(engine: Engine) -> str | None:
    """Why the engine's backend and bundle cannot tell their routing; None when they can. A task must be active."""
    if not engine.manifest.model.moe_blocks:
        return "this model has no experts"
    if (taps := engine.taps()) is None:
        return f"backend {engine.backend!r} does not tell its routing; tvm-cpu does"
    if None in taps.values():
        return "this bundle was compiled before programs could tell their routing; compile it again"
    return None


def trace(engine: Engine, frame: Image, *, color: Colour | None = None) -> tuple[Output, dict[str, ExpertMap]]:
    """What `engine(frame)` gives, and the expert map of each active task.

    Raises what the call raises, and BackendError where the backend or bundle cannot tell.
    """
    config, maps = engine.manifest.model, {}
    with engine.lock:
        if reason := obstacle(engine):
            raise BackendError(f"there is no map of the experts: {reason}")
        rooms = {task: np.full((len(config.moe_blocks), config.tokens, config.top_k), -1) for task in engine.active}
        taps = {task: tap for task, tap in (engine.taps() or {}).items() if tap}
        try:
            for task, room in rooms.items():
                taps[task](room)
            out = engine(frame, color=color)
        finally:
            for tap in taps.values():
                tap(np.empty(0, np.int64))
    place = engine.place(frame)
    for task, room in rooms.items():
        if (room < 0).any():
            raise BackendError(f"the program of {task!r} told fewer routings than the model has blocks with experts")
        maps[task] = ExpertMap(task, config.moe_blocks, _global(config, task, room), place)
    return out, maps


def _global(config: ModelConfig, task: str, room: Ids) -> Ids:
    """Positions in the task's path [blocks, tokens, k] as expert ids [blocks, rows, columns, k]."""
    ids = np.stack([np.array(path)[chosen] for path, chosen in zip(config.path(task), room[:, 1:], strict=True)])
    return ids.reshape(len(room), *config.grid, config.top_k)
