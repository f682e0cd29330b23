"""INT8 bundles: the folded model is the float one, programs equal the INT8 reference, and the cost is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rooms import write_rooms
from test_calibrate import lively

import edgemtl
from edgemtl.bench import profile
from edgemtl.bundle.manifest import TaskAccuracy
from edgemtl.bundle.packing import Codes
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import CompileError, DataError
from edgemtl.graph.count import count
from edgemtl.graph.ops._activations import gelu
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import arrays, save_checkpoint
from edgemtl_compiler import compile_bundle, precision
from edgemtl_compiler.bundle import Built
from edgemtl_compiler.cpu import targets
from edgemtl_compiler.quantise import accuracy
from edgemtl_compiler.quantise import cpu as quantise_cpu
from edgemtl_compiler.quantise.calibrate import Range, calibrate
from edgemtl_compiler.quantise.cpu import Quantised
from edgemtl_compiler.quantise.fake_int8 import FakeInt8, gelu_coarse
from edgemtl_compiler.quantise.pictures import pictures

CPU = targets.resolve("cpu", "int8")


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rooms(tmp_path_factory.mktemp("rooms") / "data")


@pytest.fixture(scope="session")
def quantised(micro: Any, rooms: Path) -> Quantised:
    state = arrays(micro.model.state_dict())
    ranges = calibrate(micro.config, state, pictures(rooms, micro.config, 32).images)
    return quantise_cpu.quantise(micro.config, state, ranges)


@pytest.fixture(scope="session")
def int8(micro: Any, rooms: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An INT8 bundle of the micro model, measured on the small rooms."""
    out = tmp_path_factory.mktemp("int8") / "m.edgemtl"
    return compile_bundle(micro.model, out, precision="int8", calibrate=rooms, images=32, evaluate=4)


def relative(got: Any, want: Any) -> float:
    return float(np.abs(np.asarray(got) - np.asarray(want)).max() / np.abs(np.asarray(want)).max())


def test_folding_keeps_the_model(micro: Any, quantised: Quantised) -> None:
    folded = MultiTaskViT(micro.config)
    folded.load_state_dict({k: torch.from_numpy(v) for k, v in quantised.state.items()})
    moved = [k for k, v in micro.model.state_dict().items() if not np.array_equal(v.numpy(), quantised.state[k])]
    assert any("norm1" in k for k in moved)
    assert any("w_gate" in k for k in moved)
    for number, image in micro.inputs.items():
        with torch.no_grad():
            for task, value in folded.eval()(torch.from_numpy(image)).items():
                assert relative(value[0], micro.outputs[task][number]) < 1e-5


def test_every_layer_with_a_kernel_is_a_unit(micro: Any, quantised: Quantised) -> None:
    names = {u.name for u in quantised.units}
    want = {f"blocks.{i}.attn.{layer}" for i in range(micro.config.depth) for layer in ("qkv", "proj")}
    want |= {f"blocks.{i}.{'experts' if i % 2 else 'mlp'}" for i in range(micro.config.depth)}
    want |= {f"{t}:head.{step}" for t in micro.config.task_names for step in ("proj", "step0", "step1")}
    assert names == want | {"embed"}
    held = {f"experts.{b}:{e}" for b, ids in zip((1, 3), micro.config.held, strict=True) for e in ids}
    assert held <= set(quantised.codes())


def test_the_program_equals_the_int8_reference(micro: Any, int8: Built, quantised: Quantised) -> None:
    """Within rounding: float sums in another order may put a rare value on the other side of a rounding boundary."""
    codes = quantised.codes()
    fake = FakeInt8(micro.config, precision.pack_int8(quantised, codes), codes)
    with edgemtl.load(int8.path, backend="tvm-cpu") as engine:
        for image in micro.inputs.values():
            want = fake(image)
            for task in micro.config.task_names:
                engine.activate(task)
                got = engine.raw(image)[task]
                assert relative(got, want[task][0]) < 2e-2  # one step of a head's codes
                assert np.mean(np.abs(got - want[task][0]) < 1e-4 * np.abs(want[task][0]).max()) > 0.9


def test_a_hybrid_in_int8(rooms: Path, tmp_path: Path) -> None:
    """Its 1x1 steps; taps are rounded by the kernel. Compiling holds the program to the INT8 reference."""
    model, _ = lively(preset("hybrid", image_size=(32, 64), dim=32, heads=2, head_norm=False))
    out = tmp_path / "h.edgemtl"
    built = compile_bundle(model, out, tasks=("depth",), precision="int8", calibrate=rooms, images=32, evaluate=1)
    assert 1e-4 < built.errors[CPU.name]["depth"] < 0.1
    with Bundle.open(out) as opened:
        types = {f"{part}:{n}": str(p.dtype) for part, held in opened.parts.items() for n, p in held.items()}
    whole = {"trunk:blocks.0.attn.qkv", "trunk:blocks.0.mlp.fc2", "experts.1:0"}
    assert {types[ref] for ref in whole} == {"uint8"}
    whole = {f"trunk:stem.blocks.{i}.project" for i in range(1, 11)} | {"trunk:stem.blocks.1.expand", "trunk:embed"}
    assert {types[ref] for ref in whole | {"task.depth:head.at8"}} == {"uint8"}
    taps = {ref for ref in types if ref.endswith("depthwise")}
    assert {types[ref] for ref in taps | {"trunk:stem.first", "task.depth:head.out"}} == {"float32"}


def test_the_bundle_says_what_int8_costs(int8: Built, micro: Any) -> None:
    with Bundle.open(int8.path) as opened:
        manifest = opened.manifest
        kinds = {str(p.dtype) for p in opened.parts["experts.1"].values()}
    assert manifest.weight_layout == "panel16-i8"
    assert kinds == {"uint8"}
    assert manifest.programs[0].target == CPU.name
    report = manifest.quantisation
    assert report is not None
    assert (report.images, report.calibrated_on) == (32, "synthetic rooms")
    assert {t: a.metric for t, a in report.accuracy.items()} == {
        "semseg": "miou", "depth": "rmse", "normals": "mean_angle", "edge": "edge_f",
    }  # fmt: skip
    for a in report.accuracy.values():
        assert a.images == 4
        assert a.origin == f"measured, {CPU.name} program"
    assert any("task.depth:head.out" in layer.weights for layer in report.float_layers)
    assert manifest.golden is not None
    assert max(int8.errors[CPU.name].values()) < manifest.golden.tolerance < 0.3


def test_every_multiply_accumulate_of_an_int8_frame_is_profiled(int8: Built, micro: Any) -> None:
    lines, _ = profile.measure(int8.path, "depth", micro.inputs["0"], threads=2, seconds=0.01)
    assert sum(line.macs for line in lines) == count(micro.config, "depth").total
    assert "patch_embed_i8" in {line.kernel for line in lines}


def test_every_backend_reads_an_int8_bundle(int8: Built, micro: Any) -> None:
    """PyTorch gets the values that the codes stand for."""
    with Bundle.open(int8.path) as opened:
        inputs, outputs = opened.golden()
    for backend in ("tvm-cpu", "torch"):
        with edgemtl.load(int8.path, backend=backend) as engine:
            engine.activate("depth")
            assert engine.precision == "int8"
            assert relative(engine.raw(inputs["0"])["depth"], outputs["depth"]["0"]) < 0.1


def test_expert_weights_are_a_quarter(int8: Built, bundle: Path) -> None:
    with Bundle.open(int8.path) as small, Bundle.open(bundle) as large:
        before, after = (sum(p.size for p in b.parts["experts.1"].values()) for b in (large, small))
    assert after < before / 2  # slots are whole pages, which the micro model's experts barely fill


def test_layers_go_back_to_float_until_the_rule_holds(
    micro: Any, rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rule that no INT8 layer can meet leaves none, and then the program is the float one."""
    monkeypatch.setattr(accuracy, "beyond", lambda found: list(found))
    out = tmp_path / "m.edgemtl"
    built = compile_bundle(micro.model, out, tasks=("depth",), precision="int8", calibrate=rooms, images=32, evaluate=2)
    assert built.quantisation is not None
    back = [ref for layer in built.quantisation.float_layers if "1%" in layer.reason for ref in layer.weights]
    with Bundle.open(out) as opened:
        types = {f"{part}:{n}": str(p.dtype) for part, held in opened.parts.items() for n, p in held.items()}
    assert back
    assert all(types[ref] == "float32" for ref in back)
    assert "uint8" not in types.values()
    assert max(built.errors[CPU.name].values()) < 1e-5


@given(st.integers(1, 20), st.integers(0, 20), st.integers(1, 5))
def test_the_fewest_are_found(count: int, needed: int, at_least: int) -> None:
    names = [str(i) for i in range(count)]
    found = accuracy.fewest(names, lambda some: len(some) >= needed, at_least)
    assert found == names[: min(count, max(needed, at_least))]


def test_ranking_puts_a_spoilt_layer_first(micro: Any, rooms: Path, quantised: Quantised) -> None:
    """Codes a hundred times too coarse for one layer."""
    units = tuple(
        quantise_cpu.Unit(u.name, {r: (Codes(c[0].step * 100), *c[1:]) for r, c in u.codes.items()})
        if u.name == "blocks.2.mlp"
        else u
        for u in quantised.units
    )
    judge = accuracy.Judge(micro.config, arrays(micro.model.state_dict()), rooms, 4)
    spoilt = Quantised(quantised.config, quantised.state, units)
    assert accuracy.rank(judge, spoilt)[0] == "blocks.2.mlp"


def test_agreement_is_no_metric() -> None:
    a = {"depth": TaskAccuracy(metric="agreement", images=1, float32=1, int8=0.5, loss=0.5, origin="x")}
    assert accuracy.beyond(a) == []
    lost = {"depth": TaskAccuracy(metric="rmse", images=1, float32=1, int8=1.02, loss=0.02, origin="x")}
    assert accuracy.beyond(lost) == ["depth"]
    assert accuracy.beyond({"depth": lost["depth"].model_copy(update={"loss": float("nan")})}) == ["depth"]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from([0.01, 1.0, 100.0]))
def test_codes_cover_what_was_seen(seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    rows = (rng.standard_normal((64, 8)) * size).astype(np.float32)
    r = Range(rows.min(0).astype(float), rows.max(0).astype(float), [rows], len(rows))
    weight = rng.standard_normal((5, 8)).astype(np.float32)
    scale = quantise_cpu.balance(r, weight)
    seen = np.clip(np.rint(rows / scale), -127, 127) * scale
    assert relative(seen @ weight.T, rows @ weight.T) < 0.05
    codes = quantise_cpu.hidden_codes(r, weight)
    hidden = gelu(rows)
    fake = np.clip(np.rint((hidden - codes.centre) / codes.step), -127, 127) * codes.step + codes.centre
    assert relative(fake @ weight.T, hidden @ weight.T) < 0.05


def test_coarse_gelu() -> None:
    x = np.linspace(-12, 12, 100_001)
    assert np.abs(gelu_coarse(x) - gelu(x)).max() < 2.1e-4


class TestErrors:
    @pytest.fixture
    def fails(self, micro: Any, tmp_path: Path) -> Callable[..., str]:
        def call(error: type[Exception] = CompileError, model: Any = None, **arguments: Any) -> str:
            out = tmp_path / "out"
            out.mkdir()
            with pytest.raises(error) as caught:
                compile_bundle(model or micro.model, out / "x.edgemtl", precision="int8", **arguments)
            assert not list(out.iterdir())
            assert "\n" not in str(caught.value)
            return str(caught.value)

        return call

    def test_what_does_not_go_together(self, fails: Any, rooms: Path) -> None:
        assert "--precision int8 needs the model's ranges: store them once with `edgemtl calibrate" in fails()

    def test_onnx(self, fails: Any, rooms: Path) -> None:
        assert "target onnx has no INT8 form here" in fails(targets=("onnx",), calibrate=rooms)

    def test_calibration_without_int8(self, micro: Any, tmp_path: Path, rooms: Path) -> None:
        with pytest.raises(CompileError, match=r"leave out --calibrate, or add --precision int8"):
            compile_bundle(micro.model, tmp_path / "x.edgemtl", calibrate=rooms)
        with pytest.raises(CompileError, match=r"there is no precision 'int4'; choose f32, f16, bf16, int8"):
            compile_bundle(micro.model, tmp_path / "x.edgemtl", precision="int4")

    def test_folder(self, fails: Any, tmp_path: Path) -> None:
        assert "does not exist; give a folder of images" in fails(DataError, calibrate=tmp_path / "no")

    def test_a_file(self, fails: Any, rooms: Path) -> None:
        assert "is no image or video" in fails(DataError, calibrate=rooms / "rooms.json")

    def test_too_few(self, fails: Any, rooms: Path) -> None:
        assert "calibration needs 32 images or more; given 31" in fails(calibrate=rooms, images=31)

    def test_fewer_than_asked(self, fails: Any, rooms: Path) -> None:
        assert "holds 32 pictures to calibrate on, not 33: add --images 32" in fails(calibrate=rooms, images=33)

    def test_an_unreadable_picture_is_left_out(self, fails: Any, tmp_path: Path, rooms: Path) -> None:
        folder = tmp_path / "pictures"
        folder.mkdir()
        for i in range(40):
            source = rooms / "images" / f"{i % 38:06d}.jpg"
            (folder / f"{i:02d}.jpg").write_bytes(source.read_bytes() if i != 7 else b"no picture")
        assert "holds 39 pictures to calibrate on, not 40" in fails(calibrate=folder, images=40)

    def test_an_activation_that_is_not_finite(self, fails: Any, micro: Any, rooms: Path) -> None:
        model = MultiTaskViT(micro.config)
        model.load_state_dict(micro.model.state_dict())
        with torch.no_grad():
            model.backbone.blocks[2].mlp.fc1.weight[0] = 3e38  # finite, and its products are not
        said = fails(model=model, calibrate=rooms, images=32)
        assert "calibration met an activation that is not finite, at blocks.2.mlp.fc1.inner of task 'semseg'" in said


@pytest.mark.slow
def test_pictures_without_labels(micro: Any, rooms: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    """Through the command line: agreement is printed, named so, and recorded."""
    save_checkpoint(tmp_path / "micro.safetensors", micro.model, origin="random weights")
    out = tmp_path / "m.edgemtl"
    said = cli(
        "compile", tmp_path / "micro.safetensors", "-o", out, "--precision", "int8", "--calibrate", rooms / "images",
        "--images", 32, "--evaluate", 3, "--tasks", "depth,semseg",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "agreement with float" in said.out
    assert "INT8, calibrated on 32 images of images" in said.out
    shown = cli("inspect", out)
    assert "precision: linear layers and experts in INT8" in shown.out
    facts = json.loads(cli("inspect", out, "--json").out)
    assert 0.8 < facts["quantisation"]["accuracy"]["depth"]["int8"] <= 1
