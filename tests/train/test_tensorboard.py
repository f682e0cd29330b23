"""Event files hold what the log holds, also after a run was stopped and gone on with."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_rooms import FakeRooms
from rich.console import Console

from edgemtl.errors import ConfigError
from edgemtl.train.config import TrainConfig, load_train_config
from edgemtl.train.loop import Sets, Stopped, Trainer
from edgemtl.train.report import Reporter
from edgemtl.train.tensorboard import Board


def _events(folder: Path) -> list[Any]:
    """Every event of every file: records of length (8 bytes), its checksum (4), content, its checksum (4)."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in sorted(folder.iterdir()):
        raw, at = file.read_bytes(), 0
        while at < len(raw):
            (length,) = struct.unpack_from("<Q", raw, at)
            found.append(event_pb2.Event.FromString(raw[at + 12 : at + 12 + length]))
            at += length + 16
    return found


def test_events_are_the_log(tmp_path: Path, one_thread: None) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed: pip install 'edgemtl[train]'")
    base = load_train_config("rooms_micro").model_dump()
    base |= {"tensorboard": True, "log_every": 1, "usage_every": 2, "checkpoint_every": 2, "val_images": 4}
    recipe = TrainConfig(**{**base, "device": "cpu", "stages": [{"name": "shared", "steps": 5}]})

    def trainer() -> Trainer:
        return Trainer(recipe, tmp_path, Sets(FakeRooms(8), FakeRooms(8), FakeRooms(4)), Reporter(Console(quiet=True)))

    with pytest.raises(Stopped):
        trainer().run(stop_after=3)
    trainer().run(resume=True)
    events = _events(tmp_path / "tensorboard")
    scalars = {(v.tag, e.step): v.simple_value for e in events for v in e.summary.value}
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [e for e in log if e["type"] == "step"]
    assert [e["step"] for e in steps] == [1, 2, 3, 4, 5]
    for entry in steps:
        for name, value in entry["losses"].items():
            assert scalars[f"loss/{name}", entry["step"]] == pytest.approx(value, rel=1e-6)
    (scored,) = [e for e in log if e["type"] == "eval"]
    assert scalars["eval/depth/rmse", 5] == pytest.approx(scored["metrics"]["depth"]["rmse"], rel=1e-6)
    (usage, *_) = [e for e in log if e["type"] == "usage"]
    assert scalars["busiest_expert/shared/block1", 2] == pytest.approx(max(usage["share"]["shared"]["1"]), rel=1e-6)
    # the second file says that what the first wrote after step 3 is void
    assert [e.step for e in events if e.session_log.status == e.session_log.START] == [4]


def test_a_missing_writer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ConfigError, match=r"needs tensorboardX.* pip install 'edgemtl\[train\]'"):
        Board(tmp_path, 0)
