"""The loop: exact continuation, stages, stopping, and that it learns."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_rooms import FakeRooms
from rich.console import Console
from safetensors import safe_open

from edgemtl.errors import CheckpointError, ConfigError
from edgemtl.model.checkpoint import load_checkpoint, serialise
from edgemtl.train.config import TrainConfig, load_train_config
from edgemtl.train.data import advance, place
from edgemtl.train.loop import Sets, Stopped, Trainer
from edgemtl.train.paths import draw_width
from edgemtl.train.report import Reporter
from edgemtl.train.start import initial
from edgemtl.train.state import FREE, load_state, save_state

INDOOR = Path(__file__).parents[2] / "edgemtl" / "model" / "weights" / "indoor.safetensors"

HYBRID = {"tasks": "rooms", "image_size": [32, 64], "dim": 32, "heads": 2, "experts": 6, "top_k": 2, "head_dim": 16}

STAGES: list[dict[str, Any]] = [
    {"name": "shared", "steps": 6},
    {"name": "open", "steps": 5, "tasks_per_step": 2},
    {"name": "paths", "steps": 5, "experts_per_path": 3, "rank_images": 8},
]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every model here is small."""


def _recipe(**changes: Any) -> TrainConfig:
    base = load_train_config("rooms_micro").model_dump()
    base |= {"log_every": 1, "usage_every": 4, "checkpoint_every": 4, "batch": 2, "val_images": 0, "device": "cpu"}
    return TrainConfig(**{**base, "stages": STAGES, **changes})


def _trainer(recipe: TrainConfig, out: Path, val: bool = False) -> Trainer:
    sets = Sets(FakeRooms(11), FakeRooms(11, augment=False), FakeRooms(4, augment=False) if val else None)
    return Trainer(recipe, out, sets, Reporter(Console(quiet=True)))


def _run(recipe: TrainConfig, out: Path, cuts: tuple[int, ...] = ()) -> tuple[list[Any], bytes]:
    for i, cut in enumerate(cuts):
        with pytest.raises(Stopped):
            _trainer(recipe, out).run(resume=i > 0, stop_after=cut)
    model = _trainer(recipe, out).run(resume=bool(cuts))
    return _log(out, "step"), model.read_bytes()


def _log(out: Path, type: str) -> list[Any]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    wanted = [e for e in entries if e["type"] == type]
    for entry in wanted:
        entry.pop("images_per_second", None)
    return wanted


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"log_every": 4, "loss": {"stride": 2, "class_weights": "log"}},
        {"precision": "bf16", "ema": 0.0},
        {"optimiser": {"kind": "sgd", "lr": 0.002}, "schedule": {"kind": "poly", "warmup": 0}},
        {"balancer": {"kind": "uncertainty"}, "accumulate": 2},
        {"balancer": {"kind": "gradnorm"}, "sharpness": 0.05},
        {"preset": "hybrid", "model": HYBRID, "precision": "bf16", "ema": 0.9},
        {"stages": [*STAGES[:2], {**STAGES[2], "widths": True}]},
    ],
    ids=["adamw", "windows", "bf16", "sgd", "uncertainty", "gradnorm", "hybrid", "widths"],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Cuts inside each stage and exactly at a stage's end; losses equal to the bit, and so is the model."""
    recipe = _recipe(**changes)
    whole = _run(recipe, tmp_path / "whole")
    parts = _run(recipe, tmp_path / "parts", (3, 3, 2, 5))
    assert len(whole[0]) == (16 if recipe.log_every == 1 else 6)
    assert whole == parts


def test_another_seed_is_another_run(tmp_path: Path) -> None:
    stages = [{"name": "shared", "steps": 2}]
    first, _ = _run(_recipe(stages=stages), tmp_path / "a")
    other, _ = _run(_recipe(stages=stages, seed=1), tmp_path / "b")
    assert first[0]["losses"] != other[0]["losses"]


def test_stages_lead_to_declared_paths(tmp_path: Path) -> None:
    recipe = _recipe(val_images=4)
    path = _trainer(recipe, tmp_path, val=True).run()
    configs = {n: load_checkpoint(tmp_path / f"{n}.safetensors")[1].config for n in ("shared", "open", "paths")}
    assert (configs["shared"].gate, configs["open"].gate) == ("single", "multi")
    assert configs["open"].paths == {}
    model, info = load_checkpoint(path)
    assert info.config == configs["paths"]
    assert set(info.config.paths) == {"semseg", "depth", "normals", "edge"}
    assert all(len(bank) == 3 for task_path in info.config.paths.values() for bank in task_path)
    _, trace = model.trace(FakeRooms().batch([0, 1])["image"])
    for (task, block), routing in trace.routings.items():
        allowed = info.config.path(task)[info.config.moe_blocks.index(block)]
        assert set(routing.expert.flatten().tolist()) <= set(allowed)
    evaluated = _log(tmp_path, "eval")
    assert [e["stage"] for e in evaluated] == ["shared", "open", "paths"]
    assert evaluated[0]["metrics"]["images"]["count"] == 4
    usage = _log(tmp_path, "usage")
    assert set(usage[0]["share"]) == {"shared"}
    assert sum(usage[0]["share"]["shared"]["1"]) == pytest.approx(2, abs=1e-3)  # top-2: two experts per token
    assert len(usage[-1]["share"]) == 4


def test_widths_are_sampled_in_the_last_stage(tmp_path: Path) -> None:
    """Whole paths drawn in every step: the run without the option, to the bit. Narrower ones: another one."""
    runs = {}
    for name, widths in {"none": False, "whole": [3], "sampled": [1, 2]}.items():
        stages = [{"name": "open", "steps": 1}, {**STAGES[2], "widths": widths}]
        losses, _ = _run(_recipe(stages=stages), tmp_path / name)
        model, info = load_checkpoint(tmp_path / name / "model.safetensors")
        runs[name] = losses, {k: v.tolist() for k, v in model.state_dict().items()}, info.config.widths
    assert runs["none"][:2] == runs["whole"][:2]
    assert [widths for _, _, widths in runs.values()] == [(), (3,), (1, 2, 3)]
    drawn = [draw_width((1, 2, 3), 0, step) for step in range(1, 6)]
    first = next(i for i, width in enumerate(drawn, 1) if width < 3)
    assert runs["sampled"][0][:first] == runs["none"][0][:first]
    assert runs["sampled"][0][first] != runs["none"][0][first]
    assert [e["width"] for e in _log(tmp_path / "sampled", "usage")] == drawn[2:3]
    assert "width" not in _log(tmp_path / "none", "usage")[0]


def test_the_loss_goes_down(tmp_path: Path) -> None:
    recipe = _recipe(stages=[{"name": "shared", "steps": 30}], batch=8)
    losses = [e["losses"]["loss"] for e in _run(recipe, tmp_path)[0]]
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])


def test_init_carries_weights_over(tmp_path: Path) -> None:
    _run(_recipe(stages=[{"name": "shared", "steps": 4}]), tmp_path / "a")
    recipe = _recipe(stages=[{"name": "open", "steps": 1, "lr": 1e-12}], ema=0.0)
    path = _trainer(recipe, tmp_path / "b").run(init=tmp_path / "a" / "model.safetensors")
    before, after = load_checkpoint(tmp_path / "a" / "model.safetensors")[0], load_checkpoint(path)[0]
    gate = before.state_dict()["backbone.blocks.1.mlp.gate.shared.w_gate"]
    for task in after.config.task_names:
        assert torch.equal(after.state_dict()[f"backbone.blocks.1.mlp.gate.{task}.w_gate"], gate)
    wrong = _recipe(model={"dim": 48})
    with pytest.raises(CheckpointError, match="differs from the recipe's model in dim"):
        _trainer(wrong, tmp_path / "c").run(init=tmp_path / "a" / "model.safetensors")


def test_another_sets_classes_start_anew_and_the_rest_is_carried_over(tmp_path: Path) -> None:
    """Rooms have 13 classes, NYU Depth V2 has 40: of the head of semseg only the last step is new."""
    first = {"preset": "hybrid", "model": HYBRID, "ema": 0.0, "stages": [{"name": "shared", "steps": 1}]}
    _trainer(_recipe(**first), tmp_path / "rooms").run()
    start = tmp_path / "rooms" / "model.safetensors"
    want = _recipe(**{**first, "model": {**HYBRID, "tasks": "nyud", "rays": True}}).model_config_for("single")
    config, state, fresh = initial(start, want, 0)
    assert config.task("semseg").channels == 40
    assert fresh == ["heads.normals.rays.weight", "heads.semseg.out.bias", "heads.semseg.out.weight"]
    old = load_checkpoint(start)[0].state_dict()
    assert all(torch.equal(state[k], old[k]) for k in old if k not in fresh)
    other = _recipe(**{**first, "model": {**HYBRID, "dim": 64}}).model_config_for("single")
    with pytest.raises(CheckpointError, match="differs from the recipe's model in dim"):
        initial(start, other, 0)


def test_a_shipped_model_with_widths_can_start_a_training() -> None:
    """Its paths are opened again, so that the widths they were trained at no longer hold."""
    want = TrainConfig(preset="hybrid", stages=[{"name": "paths", "epochs": 1}]).model_config_for("multi")
    config, _, fresh = initial(INDOOR, want, 0)
    assert (config.paths, config.widths, fresh) == ({}, (), [])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_parts_give_the_losses_of_plain_ones(tmp_path: Path) -> None:
    first = {"preset": "hybrid", "model": {**HYBRID, "depth": 2}, "tasks": ("depth",)}
    first["stages"] = [{"name": "shared", "steps": 3}]
    losses = [_run(_recipe(**first, compile=c), tmp_path / str(c))[0] for c in (False, True)]
    for plain, compiled in zip(*losses, strict=True):
        assert compiled["losses"] == pytest.approx(plain["losses"], rel=1e-2)


def test_a_run_is_not_overwritten_nor_continued_with_another_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = _recipe()
    with pytest.raises(CheckpointError, match="holds no run to resume"):
        _trainer(recipe, tmp_path).run(resume=True)
    with pytest.raises(Stopped):
        _trainer(recipe, tmp_path).run(stop_after=1)
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        _trainer(recipe, tmp_path).run()
    with pytest.raises(ConfigError, match="batch, ema changed since this run began"):
        _trainer(_recipe(batch=3, ema=0.5), tmp_path).run(resume=True)
    state = tmp_path / "state.safetensors"
    stored = load_state(tmp_path, recipe)
    with monkeypatch.context() as m:  # a state from before there were balancers
        old = {k: v for k, v in recipe.model_dump(mode="json").items() if k not in FREE | {"balancer", "accumulate"}}
        m.setattr("edgemtl.train.state._comparable", lambda _: old)
        save_state(tmp_path, stored, recipe)
    assert load_state(tmp_path, recipe).position == stored.position
    state.write_bytes(state.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="damaged"):
        _trainer(recipe, tmp_path).run(resume=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, m: _alter(m, "position", stage=9), "no place in a run"),
        (lambda t, m: _alter(m, "position", seen=-5), "no place in a run"),
        (lambda t, m: _alter(m, "position", step="a"), "no place in a run"),
        (lambda t, m: _alter(m, "position", window=3), "no losses"),
        (lambda t, m: _alter(m, "model", wings=2), "another edgemtl's .*wings"),
        (lambda t, m: _alter(m, "model", dim=64), r"another edgemtl's \(model/"),
        (lambda t, m: t.pop("model/backbone.cls_token"), r"another edgemtl's \(model/backbone\.cls_token"),
        (lambda t, m: t.pop("average/backbone.cls_token"), r"another edgemtl's \(average/backbone\.cls_token"),
        (lambda t, m: t.update({"optimiser/exp_avg/backbone.cls_token": torch.zeros(3)}), "optimiser/exp_avg"),
        (lambda t, m: t.update({"optimiser/exp_avg/nobody": torch.zeros(3)}), "optimiser/exp_avg/nobody"),
    ],
)
def test_a_state_that_does_not_fit_this_edgemtl(tmp_path: Path, change: Callable[..., Any], message: str) -> None:
    with pytest.raises(Stopped):
        _trainer(_recipe(ema=0.9), tmp_path).run(stop_after=1)
    path = tmp_path / "state.safetensors"
    with safe_open(str(path), "pt") as file:
        tensors, metadata = {k: file.get_tensor(k) for k in file.keys()}, dict(file.metadata())  # noqa: SIM118
    change(tensors, metadata)
    path.write_bytes(serialise(tensors, metadata))
    with pytest.raises(CheckpointError, match=message) as caught:
        _trainer(_recipe(ema=0.9), tmp_path).run(resume=True)
    assert "\n" not in str(caught.value)


def _alter(metadata: dict[str, str], part: str, **changes: Any) -> None:
    metadata[part] = json.dumps({**json.loads(metadata[part]), **changes})


def test_the_old_state_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe()
    with pytest.raises(Stopped):
        _trainer(recipe, tmp_path).run(stop_after=2)
    before = (tmp_path / "state.safetensors").read_bytes()

    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(os, "fsync", fail)
        with pytest.raises(CheckpointError, match=r"state\.safetensors cannot be written \(No space left on device\)"):
            _trainer(recipe, tmp_path).run(resume=True, stop_after=1)
    assert not list(tmp_path.glob("*.tmp"))
    assert (tmp_path / "state.safetensors").read_bytes() == before
    with pytest.raises(Stopped, match="after 3 of 6"):
        _trainer(recipe, tmp_path).run(resume=True, stop_after=1)


def test_a_loss_that_blows_up_stops_the_run(tmp_path: Path) -> None:
    recipe = _recipe(optimiser={"kind": "sgd", "lr": 10.0, "clip": 0.0}, schedule={"warmup": 0})
    with pytest.raises(ConfigError, match=r"no longer finite in step .* lower optimiser\.lr"):
        _trainer(recipe, tmp_path).run()


PROGRAM = """
import sys
from pathlib import Path
from rich.console import Console
sys.path.insert(0, {here!r})
from fake_rooms import FakeRooms
from edgemtl.train.config import TrainConfig
from edgemtl.train.loop import Sets, Stopped, Trainer
from edgemtl.train.report import Reporter
from edgemtl.train.start import initial
recipe = TrainConfig.model_validate_json(Path({recipe!r}).read_text())
data = FakeRooms(11)
try:
    Trainer(recipe, Path({out!r}), Sets(data, data), Reporter(Console(file=sys.stdout))).run()
except Stopped as e:
    print(e, flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_run_that_resumes(tmp_path: Path, number: signal.Signals) -> None:
    recipe = _recipe(stages=[{"name": "shared", "steps": 100_000}], checkpoint_every=100_000)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    out, here = tmp_path / "run", str(Path(__file__).parent)
    program = PROGRAM.format(here=here, recipe=str(tmp_path / "recipe.json"), out=str(out))
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        first = process.stdout.readline()  # the first loss line: training is under way
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.wait() == 130
    assert first.startswith("shared 1/100000 loss")
    assert "stopped in stage shared" in rest
    done = len(_log(out, "step"))
    assert done >= 1
    with pytest.raises(Stopped, match=f"after {done + 1} of"):
        _trainer(recipe, out).run(resume=True, stop_after=1)
    assert [e["step"] for e in _log(out, "step")] == list(range(1, done + 2))


def test_data_order() -> None:
    """Every image once per epoch, in an order that depends on the epoch; short ends are skipped."""
    seen, epochs = 0, {}
    for _ in range(6):
        epoch, indices = place(seen, 3, 10, seed=5)
        epochs.setdefault(epoch, []).extend(indices)
        seen = advance(seen, 3, 10)
    assert set(epochs) == {0, 1}
    assert all(len(set(ids)) == 9 for ids in epochs.values())
    assert epochs[0] != epochs[1]
    assert place(0, 3, 10, seed=6)[1] != place(0, 3, 10, seed=5)[1]
    assert sorted(place(0, 99, 4, seed=0)[1]) == [0, 1, 2, 3]  # a batch larger than the set is the set


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"log\.jsonl cannot be written \(.*give another --out"):
        _trainer(_recipe(), tmp_path / "file" / "run").run()
