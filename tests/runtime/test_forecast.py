"""What a switch is said to cost is what it then costs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

import edgemtl
from edgemtl.runtime.forecast import forecast
from edgemtl.runtime.mapping import segments

WAY = [("depth",), ("semseg",), ("semseg", "normals"), ("edge",), ("edge", "depth"), ("depth",), ("normals", "depth")]


@pytest.mark.parametrize(("before", "after"), list(pairwise(WAY)))
def test_it_comes_true(bundle: Path, before: tuple[str, ...], after: tuple[str, ...]) -> None:
    with edgemtl.load(bundle, tasks=before) as engine:
        said = forecast(engine, after)
        engine.activate(*after)
        switch = engine.switches[-1]
        if switch.mapped is not None:
            assert (said.map, said.drop) == (switch.mapped, switch.dropped)
        padding = engine.residency().mapped - said.after  # mappings are whole pages
        assert 0 <= padding < 4096 * len(segments(engine.manifest.model, after))
        assert forecast(engine, after)[:2] == (0, 0), "to stay costs nothing"


def test_on_a_backend_with_mapped_weights(bundle: Path) -> None:
    with edgemtl.load(bundle, tasks="depth") as engine:
        if engine.backend == "tvm-cpu":
            assert forecast(engine, ["semseg"]).map > 0
