"""`edgemtl estimate`: what it prints, and the one sentence for what it cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgemtl.cli import main
from edgemtl.cli._estimate_text import grouped
from edgemtl.errors import EdgeMTLError
from edgemtl.fpga.board import find
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl_compiler.fpga import estimate as est

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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded `tiny` whose tasks have six experts of sixteen in each block."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    config = preset("tiny")
    six = tuple(tuple(range(n, n + 6)) for n in range(len(config.moe_blocks)))
    save_checkpoint(path, MultiTaskViT(preset("tiny", paths=dict.fromkeys(config.task_names, six))))
    return path


def test_a_checkpoint(run: Run, checkpoint: Path) -> None:
    text = run(checkpoint, "--board", "zcu104", "--task", "depth")
    assert "tiny, depth on xczu7ev-ffvc1156-2-e at 300 MHz" in text
    assert "129 tokens" in text
    assert "origin: model" in text
    assert "URAM288" in text
    assert "head.output" in text
    assert text.index("resource ") < text.index("129 tokens")  # the totals come last
    assert max(map(len, text.splitlines()[:17])) <= 80
    found = json.loads(run(checkpoint, "--task", "depth", "--json"))
    assert found["timing"]["milliseconds"] <= 3.0
    assert found["workload"]["tokens"] == 129
    assert found["workload"]["experts_per_block"] == 6  # of the task's declared path


def test_equal_layers_share_a_line(run: Run) -> None:
    """By default; with --layers each has its own, and the sum over the lines is the frame either way."""
    short, whole = (run("--preset", "tiny", *more).split("\n\n")[0].splitlines()[1:-1] for more in ((), ("--layers",)))
    assert [line.split()[0] for line in short][2:10] == [
        "block0..11.norm1", "block0..11.qkv", "block0..11.attention", "block0..11.project", "block0..11.norm2",
        "block0,2..10.mlp", "block1,3..11.gate", "block1,3..11.experts",
    ]  # fmt: skip
    assert len(whole) == 2 + 12 * 5 + 6 + 2 * 6 + 5
    frame = json.loads(run("--preset", "tiny", "--json"))["timing"]["cycles"]
    for lines in (short, whole):
        assert sum(int(line.split()[-1].replace(",", "")) for line in lines) == frame


def test_layers_that_differ_are_not_grouped() -> None:
    config = preset("edge-moe")
    report = est.estimate(config, "depth", find())
    odd = report.layers[3].model_copy(update={"cycles": 1})
    layers = (*report.layers[:3], odd, *report.layers[4:])
    names = {name: n for name, n, _ in grouped(layers) if name.endswith("qkv")}
    assert names == {"block0.qkv": 1, "block1..11.qkv": 11}
    some = [layer for layer in report.layers if layer.name in ("block0.qkv", "block1.qkv", "block4.qkv")]
    assert [name for name, _, _ in grouped(some)] == ["block0,1,4.qkv"]


def test_a_bundle(run: Run, bundle: Path, tmp_path: Path) -> None:
    """One without calibrated integers is said to be so; a damaged one is refused."""
    assert "no calibrated integers for the accelerator" in run(bundle)
    assert "micro, depth" in run(bundle, "--task", "depth")
    data = bundle.read_bytes()
    for name, content in (("cut", data[: len(data) // 2]), ("junk", b"junk"), ("hit", b"\0" * 64 + data[64:])):
        (tmp_path / f"{name}.edgemtl").write_bytes(content)
        with pytest.raises(EdgeMTLError, match=rf"{name}\.edgemtl"):
            run(tmp_path / f"{name}.edgemtl")


def test_edge_moe_at_both_sizes(run: Run) -> None:
    def milliseconds(tokens: int) -> float:
        text = run("--preset", "edge-moe", "--tokens", tokens, "--scope", "backbone", "--json")
        assert json.loads(text)["workload"]["tokens"] == tokens
        return float(json.loads(text)["timing"]["milliseconds"])

    assert milliseconds(129) <= 3.0 < milliseconds(197)


def test_routing_and_sweep(run: Run) -> None:
    queues = ",".join(["129", "129"] + ["0"] * 14)
    assert "as given" in run("--preset", "edge-moe", "--scope", "backbone", "--routing", queues)
    text = run("--preset", "tiny", "--sweep")
    assert "over 80 % in" in text
    assert "DSP48E2, LUT" in text
    assert "fastest that fits: 8,4 with" in text
    assert max(map(len, text.splitlines())) <= 110
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
        (["--preset", "tiny", "--tokens", "1"], "2 to 2048; given 1"),
        (["--preset", "tiny", "--tokens", "65000"], "2 to 2048; given 65000"),
        (["--preset", "tiny", "--tokens", "2000"], "1025 tokens at most; this model has 2000"),
        (["--preset", "tiny", "--board", "zcu999"], "there is no board"),
        (["--preset", "tiny", "--clock", "600"], "50 to 333 MHz; given 600"),
        (["--preset", "tiny", "--lanes", "8"], "takes 2 whole numbers"),
        (["--preset", "tiny", "--lanes", "16,4"], "does not fit zcu104: DSP48E2"),
        (["--preset", "tiny", "--routing", "a,b"], "takes whole numbers"),
        (["--preset", "tiny", "--routing", "1,2"], "add up to 516"),
        (["--preset", "tiny", "--scope", "head"], "task or backbone"),
        (["--preset", "tiny", "--task", "dept"], "there is no task 'dept'"),
        (["checkpoint", "--tokens", "129"], "goes with --preset"),
    ],
)
def test_what_is_wrong_is_said(run: Run, checkpoint: Path, words: list[object], message: str) -> None:
    with pytest.raises(EdgeMTLError, match=message):
        run(*(checkpoint if word == "checkpoint" else word for word in words))
