"""The hybrid: exact slices whatever its blocks, checkpoints, bundles for backend torch, counts, rays and cameras."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import edgemtl
from edgemtl.bundle.layout import pack_state, unpack_state
from edgemtl.cli.inspect import inspect
from edgemtl.config import ModelConfig
from edgemtl.errors import CheckpointError, CompileError, EdgeMTLError
from edgemtl.graph.count import count, prefix, weight_bytes
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint, without_training
from edgemtl.runtime import optics
from edgemtl.train.config import load_train_config
from edgemtl.train.start import initial
from edgemtl_compiler import compile_bundle
from edgemtl_compiler.fpga.network import graph_of

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL: dict[str, Any] = {
    "image_size": (32, 48),
    "dim": 32,
    "heads": 2,
    "experts": 6,
    "top_k": 2,
    "head_dim": 16,
    "tasks": "rooms",
}
PATHS = {"depth": ((0, 2, 4), (1, 2)), "normals": ((1, 2, 3), (0, 5))}
BUNDLED = {"rays": True, "paths": PATHS}
TASKS = ("semseg", "depth", "normals")


def small(**changes: Any) -> ModelConfig:
    return preset("hybrid", **{**SMALL, **changes})


def model(seed: int = 0, **changes: Any) -> MultiTaskViT:
    torch.manual_seed(seed)
    out = MultiTaskViT(small(**changes))
    with torch.no_grad():  # norms with statistics of their own
        for name, value in out.state_dict().items():
            if ".norm." in name and name.startswith("backbone.stem"):
                value.copy_(torch.rand_like(value) + 0.5)
    return out.eval()


PLACES = st.sampled_from([None, (), (0,), (1,), (3,), (1, 3), (2, 3), (0, 1, 2, 3)])


@settings(max_examples=12, deadline=None)
@given(moe=PLACES, rays=st.booleans(), folded=st.booleans(), data=st.data())
def test_a_slice_gives_the_maps_of_the_whole_model(moe: Any, rays: bool, folded: bool, data: st.DataObject) -> None:
    banks = 2 if moe is None else len(moe)
    path = st.lists(st.integers(0, 5), min_size=2, max_size=6, unique=True).map(lambda p: tuple(sorted(p)))
    paths = {"depth": tuple(data.draw(path) for _ in range(banks))} if banks else {}
    whole = model(depth=4, moe=moe, rays=rays, paths=paths)
    whole = without_training(whole) if folded else whole
    image = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        maps = whole(image)
        for task in ("depth", "normals", "semseg"):
            part = whole.slice(task)
            torch.testing.assert_close(part(image)[task], maps[task], rtol=1e-4, atol=1e-4)
            one = part.suffix(part.prefix(image[:1]), task)
            torch.testing.assert_close(one, maps[task][:1], rtol=1e-4, atol=1e-4)


def test_without_blocks_it_is_stem_and_heads() -> None:
    bare = model(depth=0)
    maps = bare(torch.zeros(1, 3, 32, 48))
    assert {k: tuple(v.shape) for k, v in maps.items()}["depth"] == (1, 1, 8, 12)
    assert not any("blocks" in k and "stem" not in k for k in bare.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "light"}, "come together"),
        ({"head_stride": 2}, "patch 16, head_stride 4"),
        ({"moe": (3, 1)}, "ascending"),
        ({"moe": (4,)}, "below depth 4"),
        ({"rays": True, "fov": None}, "rays need"),
        ({"image_std": (0.0, 1.0, 1.0)}, "image_std"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)
    with pytest.raises(ValueError, match="needs stem lite0"):
        preset("tiny", depth=0)
    with pytest.raises(ValueError, match="odd blocks"):
        preset("tiny", moe=(2,))


def test_a_variance_below_zero_is_refused(tmp_path: Path) -> None:
    whole = model()
    with torch.no_grad():
        whole.backbone.stem.first.norm.running_var[0] = -1
    save_checkpoint(tmp_path / "m.safetensors", whole)
    with pytest.raises(CheckpointError, match=r"first\.norm\.running_var holds a variance below 0"):
        load_checkpoint(tmp_path / "m.safetensors")


def test_a_half_precision_checkpoint_keeps_the_norms_statistics(tmp_path: Path) -> None:
    whole = model()
    with torch.no_grad():
        whole.backbone.stem.first.norm.running_var[0] = 1e6  # beyond float16
    save_checkpoint(tmp_path / "m.safetensors", whole)
    again, info = load_checkpoint(tmp_path / "m.safetensors")
    assert info.dtype == "float16"
    assert float(again.backbone.stem.first.norm.running_var[0]) == 1e6
    save_checkpoint(tmp_path / "n.safetensors", again)
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()


def test_a_bundle_packs_every_weight_and_gives_it_back() -> None:
    whole = without_training(model(rays=True))
    state = {k: v.numpy() for k, v in whole.state_dict().items()}
    parts = pack_state(whole.config, state)
    back = unpack_state(whole.config, lambda part, tensor: parts[part][tensor])
    assert back.keys() == state.keys()
    assert all(np.array_equal(back[k], v) for k, v in state.items())


@pytest.mark.parametrize("task", ["depth", "normals", "semseg"])
@pytest.mark.parametrize("changes", [{}, {"moe": (3,)}, {"depth": 0}, {"rays": True, "paths": PATHS}])
def test_the_counted_work_is_that_of_the_module(task: str, changes: dict[str, Any]) -> None:
    part = without_training(model(**changes)).slice(task)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        part(torch.zeros(1, 3, 32, 48))
    work = count(part.config, task)
    gates = work.gates  # an inference's gate sums columns one by one: no product to count
    assert work.total - gates - work.attention == counter.get_total_flops() // 2 - _attention(counter)
    assert weight_bytes(part.config, task) == 4 * sum(v.numel() for v in part.state_dict().values())
    assert prefix(part.config) <= work.total


def _attention(counter: FlopCounterMode) -> int:
    found = counter.get_flop_counts()["Global"]
    return sum(n for op, n in found.items() if "attention" in str(op)) // 2


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hybrid") / "small.edgemtl"
    compile_bundle(model(**BUNDLED), out, targets=("torch", "onnx", "cpu"))
    return out


class TestInABundle:
    @pytest.mark.parametrize("backend", ["torch", "onnxruntime", "tvm-cpu"])
    def test_a_backend_gives_the_models_maps(self, bundle: Path, backend: str) -> None:
        whole, image = model(**BUNDLED), np.random.default_rng(0).standard_normal((1, 3, 32, 48), np.float32)
        with edgemtl.load(bundle, backend=backend, threads=1, tasks=TASKS) as engine, torch.no_grad():
            assert engine.manifest.preprocess.fill == 127
            assert engine.manifest.preprocess.mean[0] == pytest.approx(127 / 255)
            want, got = whole(torch.from_numpy(image)), engine.raw(image)
            for task in TASKS:
                assert float((want[task][0] - torch.from_numpy(got[task])).abs().max() / want[task].abs().max()) < 1e-5

    def test_depth_follows_the_cameras_field_of_view(self, bundle: Path) -> None:
        frame = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
        maps = []
        for fov in (None, 56.71, 2 * math.degrees(math.atan(2 * math.tan(math.radians(56.71) / 2)))):
            with edgemtl.load(bundle, backend="torch", threads=1, tasks="depth", fov=fov) as engine:
                maps.append(engine(frame)["depth"].map)
        np.testing.assert_allclose(maps[1], maps[0], rtol=1e-6)
        np.testing.assert_allclose(maps[2], maps[0] / 2, rtol=1e-5)  # twice as wide: half the focal length

    def test_what_has_no_program_says_so(self, tmp_path: Path) -> None:
        with pytest.raises(CompileError, match="--arch is for GPUs"):
            compile_bundle(model(), tmp_path / "m.edgemtl", targets=("torch",), arches=("sm_87",))
        for host_heads in (False, True):
            with pytest.raises(CompileError, match="no convolution for stem.first, .* --target cpu, onnx or torch"):
                graph_of(small(), "depth", host_heads)
        assert not list(tmp_path.iterdir())

    def test_a_letterboxed_camera_sees_with_a_part_of_the_width(self, tmp_path: Path) -> None:
        """A square frame fills 32 of 48 columns: the whole input then sees 1.5 times as wide as the camera."""
        out = tmp_path / "m.edgemtl"
        compile_bundle(model(), out, targets=("torch",), letterbox=True)
        frame, maps = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8), []
        whole = 2 * math.degrees(math.atan(1.5 * math.tan(math.radians(40))))
        for fov in (None, 80):
            with edgemtl.load(out, backend="torch", threads=1, tasks="depth", fov=fov) as engine:
                maps.append(engine(frame)["depth"].map)
        np.testing.assert_allclose(maps[1], maps[0] * optics.zoom(small(), whole), rtol=1e-5)

    def test_a_bundle_without_blocks_is_inspected(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        compile_bundle(model(depth=0), tmp_path / "m.edgemtl", targets=("torch",))
        inspect(tmp_path / "m.edgemtl")
        assert "none" in capsys.readouterr().out


def test_numpys_numbers_are_fields_of_view() -> None:
    for fov in (np.float32(70), np.float64(70), np.int64(70)):
        assert optics.zoom(small(), fov) == optics.zoom(small(), 70)
    with pytest.raises(EdgeMTLError, match="from 1 to 179") as caught:
        optics.zoom(small(), 10**400)
    assert len(str(caught.value)) < 200


def test_a_field_of_view_that_cannot_be_is_refused() -> None:
    for bad in (0, 180, float("nan"), "60", True):
        with pytest.raises(EdgeMTLError, match="from 1 to 179"):
            optics.zoom(small(), bad)  # type: ignore[arg-type]
    with pytest.raises(EdgeMTLError, match="learnt for no one camera"):
        optics.zoom(small(fov=None), 60)


def test_rays_are_the_pinholes() -> None:
    whole = model(rays=True, fov=90.0)
    rays = whole.prefix(torch.zeros(2, 3, 32, 48), torch.tensor([float("nan"), 60.0])).rays
    assert rays is not None
    assert rays.shape == (2, 2, 8, 12)
    x, y = rays[0]
    assert float(x[0, -1]) == pytest.approx(11 / 12)  # the last pixel's middle, where the border is at tan 45° = 1
    assert float(y[0, 0]) == pytest.approx(7 / 12)  # y up; pixels are square
    torch.testing.assert_close(rays[1], rays[0] * math.tan(math.radians(30)))
    torch.testing.assert_close(rays.flip(2, 3), -rays)


def test_the_pre_training_on_homes_starts_the_run_on_photographs() -> None:
    start = Path(__file__).parents[2] / "edgemtl" / "model" / "weights" / "hybrid-homes.safetensors"
    want = load_train_config("indoor").model_config_for("single")
    config, _, fresh = initial(start, want, 0)
    assert (config, fresh) == (want, [])
