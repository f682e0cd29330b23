"""Two processes over gloo, and parts of a batch: the losses and weights of one process with the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_rooms import FakeRooms
from rich.console import Console

from edgemtl.errors import ConfigError
from edgemtl.model.checkpoint import load_checkpoint
from edgemtl.train.config import TrainConfig, load_train_config
from edgemtl.train.loop import Sets, Trainer
from edgemtl.train.parallel import Group
from edgemtl.train.report import Reporter

STAGES = [
    {"name": "shared", "steps": 3},
    {"name": "open", "steps": 3, "tasks_per_step": 2},
    {"name": "paths", "steps": 2, "experts_per_path": 3, "rank_images": 8},
]


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Every model here is small."""


def _recipe(**changes: Any) -> TrainConfig:
    base = load_train_config("rooms_micro").model_dump()
    base |= {"log_every": 1, "batch": 4, "val_images": 0, "device": "cpu", "stages": STAGES}
    return TrainConfig(**{**base, **changes})


def _run(recipe: TrainConfig, out: Path, *, resume: bool = False) -> Path:
    sets = Sets(PartlyLabelled(11), PartlyLabelled(11))
    return Trainer(recipe, out, sets, Reporter(Console(quiet=True))).run(resume=resume)


def _losses(out: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [e["losses"] for e in entries if e["type"] == "step"]


def _same(one: Path, other: Path, *, but: tuple[str, ...] = ()) -> None:
    """Losses and weights to rounding; with paths, where rounding can make a token choose its next expert, less so."""
    first, second = _losses(one), _losses(other)
    assert len(first) == len(second) == 8
    for step, (a, b) in enumerate(zip(first, second, strict=True)):
        declared = step >= 6
        keep = a.keys() - set(but) - ({"balance", "norm"} if declared else set())
        assert a.keys() == b.keys()
        want = pytest.approx({k: b[k] for k in keep}, rel=1e-3 if declared else 2e-5)
        assert {k: a[k] for k in keep} == want
    states = [load_checkpoint(p / "open.safetensors")[0].state_dict() for p in (one, other)]
    for key, value in states[0].items():
        assert torch.allclose(value, states[1][key], atol=2e-3), key


class PartlyLabelled(FakeRooms):
    """Every third image has no depth, and pixels are missing unevenly: means per process would differ."""

    def _sample(self, index: int) -> dict[str, torch.Tensor]:
        sample = super()._sample(index)
        if index % 3 == 0:
            sample["depth"] = torch.full_like(sample["depth"], 255)
        sample["semseg"][: 4 * (index % 5)] = 255
        return sample


PROGRAM = """
import sys
from pathlib import Path
import torch
from rich.console import Console
sys.path.insert(0, {here!r})
torch.set_num_threads(1)
from test_parallel import PartlyLabelled
from edgemtl.train.config import TrainConfig
from edgemtl.train.loop import Sets, Stopped, Trainer
from edgemtl.train.parallel import Group
from edgemtl.train.report import Reporter
recipe = TrainConfig.model_validate_json(Path({recipe!r}).read_text())
group = Group.from_environment()
assert group.world == 2
data = PartlyLabelled(11)
try:
    Trainer(recipe, Path({out!r}), Sets(data, data), Reporter(Console(quiet=True)), group).run(stop_after={stop_after})
except Stopped:
    pass
group.close()
"""


def _run_in_two_processes(recipe: TrainConfig, folder: Path, stop_after: int | None = None) -> Path:
    folder.mkdir()
    (folder / "recipe.json").write_text(recipe.model_dump_json())
    out, here = folder / "run", str(Path(__file__).parent)
    program = folder / "program.py"
    program.write_text(
        PROGRAM.format(here=here, recipe=str(folder / "recipe.json"), out=str(out), stop_after=stop_after)
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=500, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return out


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """Through all stages, with a task's label missing in places, an uneven number of pixels, and the balance loss.

    The two stop one step before the end, and one process goes on with their state.
    """
    recipe = _recipe(loss={"stride": 2, "class_weights": "log"})
    _run(recipe, tmp_path / "one")
    out = _run_in_two_processes(recipe, tmp_path / "two", stop_after=7)
    assert not (out / "model.safetensors").exists()
    _run(recipe, out, resume=True)
    _same(tmp_path / "one", out)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"balancer": {"kind": "config"}},
        {"balancer": {"kind": "gradnorm"}, "sharpness": 0.05},
        {"balancer": {"kind": "uncertainty"}, "optimiser": {"kind": "sgd", "lr": 0.002}},
    ],
    ids=["config", "sharpness", "uncertainty"],
)
def test_two_processes_balance_as_one(tmp_path: Path, changes: dict[str, Any]) -> None:
    if changes["balancer"]["kind"] == "config":
        pytest.importorskip("torchjd", reason="torchjd is not installed: pip install 'edgemtl[train]'")
    recipe = _recipe(**changes)
    _run(recipe, tmp_path / "one")
    _same(tmp_path / "one", _run_in_two_processes(recipe, tmp_path / "two"))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_train_as_the_batch(tmp_path: Path, accumulate: int) -> None:
    """The balance loss is taken per part, so it is left out here."""
    loss = {"balance": 0.0, "class_weights": "log"}
    _run(_recipe(loss=loss), tmp_path / "whole")
    _run(_recipe(loss=loss, accumulate=accumulate), tmp_path / "parts")
    _same(tmp_path / "whole", tmp_path / "parts", but=("balance",))


def test_a_batch_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch of 4 does not divide into 1 process\(es\) x 3 part\(s\)"):
        _run(_recipe(accumulate=3), tmp_path)


def test_half_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert Group.from_environment().world == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not; start the processes with tor"):
        Group.from_environment()
