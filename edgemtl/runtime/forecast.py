"""What a switch of tasks would cost, before it happens: bytes to map and to let go, from the bundle's manifest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edgemtl.runtime.engine import Engine
from edgemtl.runtime.mapping import segments


class Forecast(NamedTuple):
    """Bytes of weights: to map, to let go, and mapped after the switch."""

    map: int
    drop: int
    after: int


def forecast(engine: Engine, tasks: Sequence[str]) -> Forecast:
    """The cost of `engine.activate(*tasks)`, whose Switch will say the same `mapped` and `dropped`.

    For a backend that keeps its own copies they are the bytes that it has to read and may forget.
    """
    config = engine.manifest.model
    held, wanted = segments(config, engine.active), segments(config, tasks)
    mapped, dropped, after = (engine.size(s) for s in (wanted - held, held - wanted, wanted))
    return Forecast(mapped, dropped, after)
