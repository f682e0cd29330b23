"""The capability matrix is true: its tests exist, its page is not stale, and peers do what it says of them."""

from __future__ import annotations

import copy
import importlib.util
import math
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgemtl.bench import capabilities, quantise
from edgemtl.bench.engines import ENGINES
from edgemtl.bench.forms import Network, onnx_proto
from edgemtl.errors import BackendError, ConfigError
from edgemtl.model import MultiTaskViT
from edgemtl.runtime import backends

yaml = pytest.importorskip("yaml", reason="PyYAML")

ROOT = Path(__file__).parents[2]
MATRIX = capabilities.read()
CELLS = [(engine, feature, cell) for engine, (_, row) in MATRIX.engines.items() for feature, cell in row.items()]
MINE = [
    pytest.param(
        engine,
        cell.verdict,
        marks=[pytest.mark.slow] if engine.startswith(("torch-c", "openvino-n", "onnxruntime-d")) else [],
    )
    for engine, _, cell in CELLS
    if cell.test.endswith("::test_a_peer_keeps_its_verdict")
]
TASK = "edge"  # all experts are open to it
SHARED = {"sparse experts": "sparse experts", "active task alone": "residency", "shared prefix": "shared prefix"}


@pytest.mark.parametrize(("engine", "feature", "cell"), CELLS, ids=[f"{e}-{f}" for e, f, _ in CELLS])
def test_the_test_behind_a_cell_exists(engine: str, feature: str, cell: capabilities.Cell) -> None:
    assert capabilities.exists(cell.test, ROOT), f"{cell.test} is gone; name the test that proves this cell now"


def test_a_test_that_does_not_exist_is_noticed() -> None:
    for name in ("tests/bench/test_capabilities.py::test_nothing", "tests/none.py::test_x", "tests/conftest.py::micro"):
        assert not capabilities.exists(name, ROOT)


def test_the_page_is_not_older_than_the_file() -> None:
    """Type: python -m edgemtl.bench.capabilities > docs/capabilities.md"""
    assert (ROOT / "docs" / "capabilities.md").read_text() == capabilities.page(MATRIX)


def test_every_backend_and_every_peer_has_a_row() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["edgemtl.backends"]
    assert set(declared) <= set(MATRIX.engines)
    peers = {name.split()[0].replace("-18", "").replace("-23", "") for name in MATRIX.engines}
    assert {e.replace("-18", "").replace("-23", "") for e, peer in ENGINES.items() if not peer.own} <= peers


@pytest.mark.parametrize("name", [n for n in MATRIX.engines if n in backends.names()])
def test_backends_say_the_same_of_themselves(name: str) -> None:
    try:
        said = backends.find(name).CAPABILITIES
    except BackendError as e:
        pytest.skip(str(e))
    for feature, cell in MATRIX.engines[name][1].items():
        if feature in SHARED:
            assert cell.verdict == said[SHARED[feature]].verdict


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{title: x, speed: [yes, a, b]}", "feature 'speed'; there are sparse"),
        ("{title: x, sparse: [perhaps, a, b]}", "a cell is"),
        ("{title: x, sparse: [yes, a]}", "a cell is"),
    ],
)
def test_a_damaged_file_is_one_sentence(row: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"features: {{sparse: words}}\nengines: {{one: {row}}}\n")
    with pytest.raises(ConfigError, match=said):
        capabilities.read(tmp_path / "c.yaml")


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
            network = Network(self.model if poisoned else self.whole, TASK, form, listed=True)
            path.write_bytes(onnx_proto(network, self.model.config.image_size, 18).SerializeToString())
        return path


@pytest.fixture(scope="module")
def poisoned(micro: Any, tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    return Poisoned(micro, tmp_path_factory.mktemp("poisoned"))


@pytest.mark.filterwarnings("ignore")  # of exporters, quantisers and compilers
@pytest.mark.parametrize(("row", "verdict"), MINE)
def test_a_peer_keeps_its_verdict(row: str, verdict: str, poisoned: Poisoned) -> None:
    name, form = row.split()
    engine = ENGINES[name]
    if reason := engine.missing():
        pytest.skip(reason)
    if not engine.family.startswith("torch") and importlib.util.find_spec("onnxscript") is None:
        pytest.skip("onnxscript is not installed: pip install 'edgemtl[compile]'")
    assert (_int8 if engine.precision == "int8" else _float)(name, form, poisoned) == verdict


def _float(name: str, form: Any, poisoned: Poisoned) -> str:
    """Dense engines spread what is not a number."""
    if name.startswith("torch"):
        network: Any = Network(poisoned.model, TASK, form).eval()
        network = torch.compile(network) if ENGINES[name].compiles else network
        with torch.no_grad():
            got = network(torch.from_numpy(poisoned.image)).numpy()
    else:
        got = ENGINES[name].prepare({"path": str(poisoned.onnx(form)), "threads": 1}, poisoned.image)()()
    if np.isnan(got).any():
        return "dense-fallback"
    np.testing.assert_allclose(got, poisoned.expected, atol=1e-4 * float(np.abs(poisoned.expected).max()))
    return "sparse-kept"


def _int8(name: str, form: str, poisoned: Poisoned) -> str:
    """What is not a number cannot be quantised, so nodes are counted: each expert of each block finds its own rows."""
    config, folder = poisoned.whole.config, poisoned.folder
    quantise.prepare_pictures(None, config, folder)
    path = quantise.quantise(f"{name.split('-')[-1]}-{form}-18", poisoned.onnx(form, poisoned=False), folder)
    if path.suffix == ".xml":
        ov = importlib.import_module("openvino")
        found = [op.get_type_name() for op in ov.Core().read_model(str(path)).get_ops()]
    else:
        onnx = importlib.import_module("onnx")
        found = [node.op_type for node in onnx.load(path).graph.node]
    experts = sum(len(bank) for bank in config.path(TASK))
    assert found.count("NonZero") in (0, experts)
    return "sparse-kept" if found.count("NonZero") == experts else "dense-fallback"
