"""The capability matrix is true: its tests exist, its table is that of its lists, and peers do what it says of them."""

from __future__ import annotations

import ast
import copy
import importlib.util
import math
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from edgemtl.bench import quantise
from edgemtl.bench.engines import ENGINES, Engine
from edgemtl.bench.forms import export
from edgemtl.errors import BackendError
from edgemtl.model import MultiTaskViT
from edgemtl.runtime import backends

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "capabilities.md").read_text()
CELL = re.compile(r"^- ([^:*]+): ([a-z-]+); (.+) \(`([^`]+)`\)$")
TASK = "edge"  # all experts are open to it
SHARED = {"sparse experts": "sparse experts", "active task alone": "residency", "shared prefix": "shared prefix"}


class Cell(NamedTuple):
    """One answer of the page's lists; `test` is FILE::FUNCTION or FILE::CLASS::METHOD."""

    engine: str  # in brackets in its title: the name of a backend, or of a peer in the benchmark
    feature: str
    verdict: str
    test: str


def cells() -> list[Cell]:
    """Every answer, in the order of the page."""
    out, engine = [], ""
    for line in PAGE.splitlines():
        if line.startswith("**"):
            engine = re.findall(r"\(([^()]+)\)", line)[0]
        elif found := CELL.match(line):
            out.append(Cell(engine, found[1], found[2], found[4]))
    return out


CELLS = cells()
MINE = [
    pytest.param(
        c.engine,
        c.verdict,
        marks=[pytest.mark.slow] if "int8" in c.engine else [],
    )
    for c in CELLS
    if c.test.endswith("::test_a_peer_keeps_its_verdict")
]


@pytest.mark.parametrize("cell", CELLS, ids=[f"{c.engine}-{c.feature}" for c in CELLS])
def test_the_test_behind_a_cell_exists(cell: Cell) -> None:
    file, *names = cell.test.split("::")
    found: Any = ast.parse((ROOT / file).read_text())
    for name in names:
        inside = {n.name: n for n in found.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        assert name in inside, f"{cell.test} is gone; name the test that proves this cell now"
        found = inside[name]
    assert names[-1].startswith("test_")


def test_the_table_and_the_lists_say_the_same() -> None:
    head, _, *rows = (line.strip("| ").split("|") for line in PAGE.splitlines() if line.startswith("|"))
    features = [name.strip() for name in head[1:]]
    table = []
    for title, *verdicts in rows:
        engine = re.findall(r"\(([^()]+)\)", title)[0]
        table += [(engine, f, v.strip()) for f, v in zip(features, verdicts, strict=False) if v.strip()]
    assert table == [c[:3] for c in CELLS]


def test_every_backend_and_every_peer_has_a_row() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["edgemtl.backends"]
    named = {c.engine for c in CELLS}
    assert set(declared) <= named
    assert {e for e, peer in ENGINES.items() if not peer.own} <= named


@pytest.mark.parametrize("name", sorted({c.engine for c in CELLS} & set(backends.names())))
def test_backends_say_the_same_of_themselves(name: str) -> None:
    try:
        said = backends.find(name).CAPABILITIES
    except BackendError as e:
        pytest.skip(str(e))
    for cell in CELLS:
        if cell.engine == name and cell.feature in SHARED:
            assert cell.verdict == said[SHARED[cell.feature]].verdict


class Poisoned:
    """The micro model in which experts that no token of `image` chose are not a number, and the right map.

    An engine that computes such an expert at all, were it to weigh it by zero, gives a map that is no number either.
    """

    def __init__(self, micro: Any, folder: Path) -> None:
        self.image, idle = micro.unchosen()
        self.whole: MultiTaskViT = micro.model
        self.model = copy.deepcopy(micro.model)
        with torch.inference_mode():
            self.expected = micro.model(torch.from_numpy(self.image), [TASK])[TASK].numpy()
        with torch.no_grad():
            for part, expert in idle:
                bank = self.model.backbone.blocks[int(part.split(".")[1])].mlp.experts
                for p in (bank.htoh4.weight, bank.htoh4.bias, bank.h4toh.weight, bank.h4toh.bias):
                    p[int(expert)] = math.nan
        self.folder, self.made = folder, dict[str, Path]()

    def onnx(self, form: Any, *, poisoned: bool = True) -> Path:
        """The export, made once."""
        path = self.folder / f"{form}-{poisoned}.onnx"
        if not path.exists():
            export(self.model if poisoned else self.whole, TASK, form, path, 18)
        return path


@pytest.fixture(scope="module")
def poisoned(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    return Poisoned(micro, tmp_path_factory.mktemp("poisoned"))


@pytest.mark.filterwarnings("ignore")  # of exporters, quantisers and compilers
@pytest.mark.parametrize(("name", "verdict"), MINE)
def test_a_peer_keeps_its_verdict(name: str, verdict: str, poisoned: Poisoned) -> None:
    engine = ENGINES[name]
    if reason := engine.missing():
        pytest.skip(reason)
    if importlib.util.find_spec("onnx") is None:
        pytest.skip("onnx is not installed: pip install 'edgemtl[compile]'")
    assert (_int8 if engine.precision == "int8" else _float)(engine, poisoned) == verdict


def _float(engine: Engine, poisoned: Poisoned) -> str:
    """Dense engines spread what is not a number."""
    path = poisoned.onnx(engine.artifact.split("-")[1])
    got = engine.prepare({"path": str(path), "threads": 1}, poisoned.image)()()
    if np.isnan(got).any():
        return "dense-fallback"
    np.testing.assert_allclose(got, poisoned.expected, atol=1e-4 * float(np.abs(poisoned.expected).max()))
    return "sparse-kept"


def _int8(engine: Engine, poisoned: Poisoned) -> str:
    """What is not a number cannot be quantised, so nodes are counted: each expert of each block finds its own rows."""
    config, folder = poisoned.whole.config, poisoned.folder
    quantise.prepare_pictures(None, config, folder)
    form = engine.artifact.split("-")[1]
    path = quantise.quantise(engine.artifact, poisoned.onnx(form, poisoned=False), folder)
    if path.suffix == ".xml":
        ov = importlib.import_module("openvino")
        found = [op.get_type_name() for op in ov.Core().read_model(str(path)).get_ops()]
    else:
        onnx = importlib.import_module("onnx")
        found = [node.op_type for node in onnx.load(path).graph.node]
    experts = sum(len(bank) for bank in config.path(TASK))
    assert found.count("NonZero") in (0, experts)
    return "sparse-kept" if found.count("NonZero") == experts else "dense-fallback"
