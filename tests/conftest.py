"""Bundles for tests: a micro model with seeded weights and declared paths, with programs where they can be compiled."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import emulated_gpu
import given
import numpy as np
import pytest

from edgemtl.bundle.layout import pack_state
from edgemtl.bundle.writer import write_bundle
from edgemtl.config import ModelConfig

if TYPE_CHECKING:
    from edgemtl.model import MultiTaskViT
    from edgemtl_compiler.fpga.image_bundle import FpgaPart

PATHS = {  # overlap in part, so that a switch keeps some experts and drops others
    "semseg": ((0, 1, 2), (1, 2, 3)),
    "depth": ((2, 3, 4), (0, 1, 5)),
    "normals": ((0, 3, 5), (2, 3, 4)),
}  # "edge" declares none: all experts are open to it


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "case(*names): keys under which tests/suite may leave a case out for a backend")
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's background job, whose children would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """PyTorch with one thread, for models so small that threads only cost."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Micro:
    """A model and what its bundle must give: golden inputs and PyTorch's outputs of the full model.

    On a machine without PyTorch (tests/given.py) `model` is missing, and `idle` is what `unchosen` found elsewhere.
    """

    config: ModelConfig
    model: MultiTaskViT
    inputs: dict[str, np.ndarray[Any, Any]]
    outputs: dict[str, dict[str, np.ndarray[Any, Any]]]
    idle: tuple[np.ndarray[Any, Any], set[tuple[str, str]]] | None = None

    def unchosen(self) -> tuple[np.ndarray[Any, Any], set[tuple[str, str]]]:
        """An image, and experts open to "edge" (part, expert) that none of its tokens chose."""
        if self.idle:
            return self.idle
        import torch

        experts = {str(e) for e in range(self.config.experts)}
        for seed in range(200):
            image = np.random.default_rng(seed).normal(size=(1, 3, *self.config.image_size)).astype(np.float32) / 8
            with torch.inference_mode():
                routings = self.model.trace(torch.from_numpy(image), ["edge"])[1].routings
            idle = set()
            for (_, block), r in routings.items():
                idle |= {(f"experts.{block}", e) for e in experts - {str(e) for e in r.expert.flatten().tolist()}}
            if idle:
                return image, idle
        raise AssertionError("every expert was chosen in every image")

    @property
    def weights(self) -> dict[str, dict[str, np.ndarray[Any, Any]]]:
        return pack_state(self.config, {k: v.numpy() for k, v in self.model.state_dict().items()})


@pytest.fixture(scope="session")
def micro() -> Micro:
    """Weights scaled up from their initial values, so that routing and maps vary with the image."""
    if folder := given.folder():
        return Micro(**given.read(folder))
    import torch

    from edgemtl.model import MultiTaskViT, preset

    config = preset("micro", paths=PATHS)
    torch.manual_seed(7)
    model = MultiTaskViT(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1 and "norm" not in name:
                p.mul_(4)
    rng = np.random.default_rng(3)
    inputs = {str(i): rng.normal(size=(1, 3, *config.image_size)).astype(np.float32) for i in range(2)}
    outputs: dict[str, dict[str, np.ndarray[Any, Any]]] = {t: {} for t in config.task_names}
    with torch.inference_mode():
        for name, image in inputs.items():
            for task, raw in model(torch.from_numpy(image)).items():
                outputs[task][name] = raw[0].numpy().copy()
    return Micro(config, model, inputs, outputs)


@pytest.fixture(scope="session")
def _plain(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.edgemtl"
    fields = {"name": "plain", "model": micro.config, "origin": "random weights"}
    write_bundle(path, manifest_fields=fields, weights=micro.weights, golden=(micro.inputs, micro.outputs))
    return path


@pytest.fixture
def plain(_plain: Path, tmp_path: Path) -> Path:
    """A fresh copy of a micro bundle without programs, which a test may damage."""
    return Path(shutil.copy(_plain, tmp_path / "plain.edgemtl"))


@pytest.fixture(scope="session")
def bundle(micro: Micro, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro bundle with programs for every backend that can be compiled for here; not to be changed."""
    if folder := given.folder():
        return folder / "micro.edgemtl"
    targets = ["onnx"] if importlib.util.find_spec("onnx") else []
    if importlib.util.find_spec("tvm") and any(map(shutil.which, ("g++", "clang++"))):
        targets.insert(0, "cpu")
        if not emulated_gpu.no_gpu():
            targets.append("cuda")
    if not targets:
        return Path(request.getfixturevalue("_plain"))
    from edgemtl_compiler import compile_bundle

    path = tmp_path_factory.mktemp("bundle") / "micro.edgemtl"
    images = list(np.random.default_rng(5).integers(0, 256, (2, 40, 70, 3), np.uint8))
    compile_bundle(micro.model, path, targets=targets, golden_images=images)
    return path


@pytest.fixture(scope="session")
def simulation_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For EDGEMTL_CACHE: where the accelerator's C simulation is built, once for all tests."""
    return tmp_path_factory.mktemp("simulation")


@pytest.fixture(scope="session")
def part(micro: Micro) -> FpgaPart:
    """The micro model in INT8 for the accelerator, quantised on its inputs, as bytes, and on blocks of colour.

    The inputs are the golden frames, in the order of their names; the integer reference gave their maps.
    """
    from edgemtl.bundle.manifest import Preprocess
    from edgemtl.model.checkpoint import arrays
    from edgemtl_compiler.fpga.image_bundle import pack
    from edgemtl_compiler.quantise.calibrate import calibrate
    from edgemtl_compiler.quantise.fpga import quantise

    used, (height, width) = Preprocess(), micro.config.image_size
    values = np.concatenate([micro.inputs[name] for name in sorted(micro.inputs)])
    for channel, (mean, std) in enumerate(zip(used.mean, used.std, strict=True)):
        values[:, channel] = 255 * (values[:, channel] * std + mean)
    frames = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    coarse = np.random.default_rng(1).integers(0, 256, (33, 3, height // 8, width // 8), np.uint8)
    blocks = coarse.repeat(8, 2).repeat(8, 3)
    state = arrays(micro.model.state_dict())
    images = np.concatenate([frames, blocks])
    network = quantise(micro.config, state, calibrate(micro.config, state, images))
    return pack(network, frames, calibration={"images": len(images), "source": "blocks"})


@pytest.fixture(scope="session")
def integer_bundle(micro: Micro, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A micro bundle with the accelerator's part alone; not to be changed."""
    if folder := given.folder():
        return folder / "micro.edgemtl"
    part: FpgaPart = request.getfixturevalue("part")
    path = tmp_path_factory.mktemp("integers") / "micro.edgemtl"
    fields = {"name": "micro", "model": micro.config, "programs": [part.entry]}
    golden = (micro.inputs, micro.outputs)
    write_bundle(path, manifest_fields=fields, weights=micro.weights, files=part.files, golden=golden)
    return path


@pytest.fixture(scope="session", autouse=emulated_gpu.WANTED)
def gpu() -> Iterator[None]:
    """The emulation in place of NVIDIA's driver, in float32 and for the micro model, until the session ends."""
    with emulated_gpu.installed("f32", head=16):
        yield


@pytest.fixture(scope="session")
def cuda_bundle(micro: Micro, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """What compiling gave, and a micro bundle in half precision for two GPU architectures, without code for them, which
    the emulation does not look at.
    """
    pytest.importorskip("tvm")
    path = tmp_path_factory.mktemp("cuda") / "m.edgemtl"
    images = list(np.random.default_rng(5).integers(0, 256, (2, 40, 70, 3), np.uint8))
    return emulated_gpu.compiled(micro.model, path, arches=["sm_87", "sm_90"], golden_images=images), path


@pytest.fixture
def installed(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of models of a package that stands for edgemtl-models; the default model is `plain`."""
    from edgemtl.bundle import models

    site = tmp_path / "site"
    folder = site / "some_models"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("from pathlib import Path\nFOLDER = Path(__file__).parent\n")
    shutil.copy(plain, folder / f"{models.DEFAULT}.edgemtl")
    info = site / "some_models-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-models\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[edgemtl.models]\nsome = some_models:FOLDER\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "some_models", raising=False)
    models._declared.cache_clear()
    yield folder
    models._declared.cache_clear()


Rezip = Callable[[Mapping[str, bytes]], Path]


@pytest.fixture
def rezip(tmp_path: Path) -> Rezip:
    """Members to a file in the canonical container, however wrong they are; sizes and hashes in the manifest are set.

    The manifest may be given as JSON of anything; where it is a table with "members", these are made to fit.
    """
    import hashlib

    from edgemtl.bundle.writer import _zip

    def build(members: Mapping[str, bytes]) -> Path:
        out = dict(members)
        try:
            manifest = json.loads(out["manifest.json"])
        except (ValueError, KeyError, RecursionError):
            manifest = None
        if isinstance(manifest, dict) and manifest.get("members"):
            manifest["members"] = [
                {"name": n, "size": len(d), "sha256": hashlib.sha256(d).hexdigest()}
                for n, d in out.items()
                if n != "manifest.json"
            ]
            out["manifest.json"] = json.dumps(manifest).encode()
        path = tmp_path / "rezipped.edgemtl"
        path.write_bytes(b"".join(_zip({n: [d] for n, d in out.items()})))
        return path

    return build


@dataclass(frozen=True)
class Said:
    """What a command left behind: exit code, standard output and error."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def _joined() -> Any:
    from edgemtl.cli import main

    main._join()
    return main


@pytest.fixture
def cli(_joined: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`cli("inspect", path)` runs the command in this process, through the same `main` that users call."""

    def run(*args: object) -> Said:
        monkeypatch.setattr("sys.argv", ["edgemtl", *map(str, args)])
        monkeypatch.setattr(_joined, "_join", lambda *_: None)
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        code = 0
        try:
            _joined.main()
        except SystemExit as e:
            code = e.code if isinstance(e.code, int) else 1
        return Said(code, *capfd.readouterr())

    return run
