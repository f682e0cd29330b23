"""The kernel's counters against the model's arithmetic, with the routing that the integer reference found."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from csim_units import CSim
from hls_models import HLS
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemtl.fpga import counters
from edgemtl.fpga.board import find
from edgemtl.fpga.contract import COUNTER_WIDTH, UNITS
from edgemtl.model import MultiTaskViT
from edgemtl_compiler.fpga import estimate as est
from edgemtl_compiler.fpga.csim import build
from edgemtl_compiler.fpga.estimate import workload as workload_module
from edgemtl_compiler.fpga.estimate.workload import Workload, workload
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.fpga.program import build as build_program

Quantised = tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]
TASKS = ("semseg", "depth", "normals", "edge")


@given(st.lists(st.integers(0, 2**32 - 1), min_size=72, max_size=72))
def test_any_words_are_read(values: list[int]) -> None:
    rows = np.array(values, "<u4").reshape(len(UNITS), COUNTER_WIDTH)
    found = counters.read(rows, "measured")
    assert list(found.units) == [n for n, row in zip(UNITS, rows, strict=True) if row[0]]
    for name, unit in found.units.items():
        calls, steps, cycles, got, put = (int(v) for v in rows[UNITS.index(name)][:5])
        assert (unit.calls, unit.steps, unit.read_bytes, unit.written_bytes) == (calls, steps, 16 * got, 16 * put)
        assert unit.cycles == (cycles or None)
    whole = [u.cycles for u in found.units.values()]
    assert found.cycles == (None if None in whole else sum(c for c in whole if c))
    assert found.as_dict()["units"].keys() == found.units.keys()


@pytest.mark.parametrize("task", TASKS)
def test_every_byte_is_counted(csim: CSim, quantised: Quantised, task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read: program, pixels, and the weights of the experts that have tokens; written: the map. Steps below the
    model's cycles in every unit, and most of them; no cycles, since nothing counts them."""
    _, network, images = quantised
    for image in images[:2]:
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        work = routed(network, pixels, task, monkeypatch)
        csim.frame(build_program(network), pixels, task)
        count = counters.read(csim.counters, "csim")
        assert count.read_bytes == work.weight_bytes + work.pixel_bytes + work.program_bytes
        assert count.written_bytes == work.output_bytes
        assert count.cycles_origin == counters.NOT_MEASURED
        modelled = est.by_unit(est.estimate(network.config, task, find()).layers)
        assert set(count.units) == set(modelled)
        for name, unit in count.units.items():
            assert unit.cycles is None
            assert 0 < unit.steps < modelled[name]


def routed(network: IntegerNetwork, pixels: Any, task: str, monkeypatch: pytest.MonkeyPatch) -> Workload:
    """The frame's work with the queues that the integer reference fills."""
    seen: dict[str, Any] = {}
    network.run(pixels, task, seen.__setitem__)
    gates = [node for node in network.graph(task).nodes if node.op == "route"]
    path = [len(node.attributes["columns"]) for node in gates]
    rows = [np.bincount(seen[g.name].expert.reshape(-1), minlength=n) for g, n in zip(gates, path, strict=True)]
    with monkeypatch.context() as patch:
        patch.setattr(workload_module, "routing", lambda *_: tuple(tuple(map(int, r)) for r in rows))
        return workload(network.config, task)


@pytest.mark.slow
def test_reads_are_those_of_the_ports(quantised: Quantised, tmp_path: Path) -> None:
    """A copy of the kernels whose one function that reads weights counts its calls itself."""
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler: apt-get install g++")
    folder = Path(shutil.copytree(HLS, tmp_path / "hls"))
    types, exports = folder / "include" / "types.h", folder / "csim" / "exports.cpp"
    text = types.read_text()
    assert text.count("  Quad quad;\n") == 1
    text = text.replace("inline Quad read_quad", "extern uint32_t quads_read;\ninline Quad read_quad")
    types.write_text(text.replace("  Quad quad;\n", "  Quad quad;\n  ++quads_read;\n"))
    exports.write_text(
        exports.read_text() + 'namespace edgemtl {\nuint32_t quads_read = 0;\n}\nextern "C" uint32_t quads_so_far() '
        "{ return edgemtl::quads_read; }\n"
    )
    counting = CSim(build(folder, tmp_path / "counting.so"))
    _, network, images = quantised
    program = build_program(network)
    pixels = np.ascontiguousarray(images[0].transpose(1, 2, 0))
    for task in TASKS:
        before = counting._lib.quads_so_far()
        counting.frame(program, pixels, task)
        count = counters.read(counting.counters, "csim")
        weights = count.read_bytes - pixels.nbytes - program.words.nbytes
        assert weights == 64 * (counting._lib.quads_so_far() - before)
