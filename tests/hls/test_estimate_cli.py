"""`edgemtl estimate`: what it prints, and the one sentence for what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgemtl.cli import main
from edgemtl.errors import EdgeMTLError

SHIPPED = Path(main.__file__).parents[1] / "model" / "weights" / "rooms-tiny.safetensors"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run() -> Run:
    if not main.app.registered_commands:
        main._join()

    def call(*words: object) -> str:
        done = CliRunner().invoke(main.app, ["estimate", *map(str, words)])
        if isinstance(done.exception, EdgeMTLError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return call


def test_a_checkpoint(run: Run) -> None:
    text = run(SHIPPED, "--board", "zcu104", "--task", "depth")
    assert "tiny, depth on xczu7ev-ffvc1156-2-e at 300 MHz" in text
    assert "129 tokens" in text
    assert "origin: model" in text
    assert "URAM288" in text
    assert "head.output" in text
    found = json.loads(run(SHIPPED, "--task", "depth", "--json"))
    assert found["timing"]["milliseconds"] <= 3.0
    assert found["workload"]["tokens"] == 129
    assert found["workload"]["experts_per_block"] == 6  # of the task's declared path


def test_edge_moe_at_both_sizes(run: Run) -> None:
    def milliseconds(tokens: int) -> float:
        text = run("--preset", "edge-moe", "--tokens", tokens, "--scope", "backbone", "--json")
        assert json.loads(text)["workload"]["tokens"] == tokens
        return float(json.loads(text)["timing"]["milliseconds"])

    assert milliseconds(129) <= 3.0 < milliseconds(197)


def test_routing_and_sweep(run: Run) -> None:
    queues = ",".join(["129", "129"] + ["0"] * 14)
    assert "as given" in run("--preset", "edge-moe", "--scope", "backbone", "--routing", queues)
    assert "fits 80 %" in run("--preset", "tiny", "--sweep")
    points = json.loads(run("--preset", "tiny", "--sweep", "--json"))
    assert points["origin"] == "model"
    assert any(p["fits"] for p in points["points"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one thing to estimate"),
        (["x.edgemtl", "--preset", "tiny"], "name one thing to estimate"),
        (["missing.safetensors"], "there is no checkpoint"),
        (["--preset", "huge"], "there is no preset"),
        (["--preset", "tiny", "--tokens", "1"], "2 or more; given 1"),
        (["--preset", "tiny", "--tokens", "2000"], "1025 tokens at most; this model has 2000"),
        (["--preset", "tiny", "--board", "zcu999"], "there is no board"),
        (["--preset", "tiny", "--clock", "600"], "50 to 333 MHz; given 600"),
        (["--preset", "tiny", "--lanes", "8"], "takes 2 whole numbers"),
        (["--preset", "tiny", "--lanes", "16,4"], "does not fit zcu104: DSP48E2"),
        (["--preset", "tiny", "--routing", "a,b"], "takes whole numbers"),
        (["--preset", "tiny", "--routing", "1,2"], "add up to 516"),
        (["--preset", "tiny", "--scope", "head"], "task or backbone"),
        (["--preset", "tiny", "--task", "dept"], "there is no task 'dept'"),
        ([SHIPPED, "--tokens", "129"], "goes with --preset"),
    ],
)
def test_what_is_wrong_is_said(run: Run, words: list[object], message: str) -> None:
    with pytest.raises(EdgeMTLError, match=message):
        run(*words)
