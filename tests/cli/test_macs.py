"""`edgemtl macs` says what the counter counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgemtl.graph.count import count, prefix
from edgemtl.model import MultiTaskViT, preset
from edgemtl.model.checkpoint import save_checkpoint
from edgemtl.model.presets import ROOMS_TASKS


def test_the_command(cli: Callable[..., Any]) -> None:
    said = cli("macs", "--preset", "tiny", "--json")
    assert said.code == 0, said.err
    facts = json.loads(said.out)
    want = count(preset("tiny"), "depth").total
    heavy = count(preset("m3vit-t", moe=()), "depth").total
    assert facts["tasks"]["depth"]["total"] == want
    assert facts["tasks"]["depth"]["peer"] == heavy
    assert facts["tasks"]["depth"]["fewer"] == pytest.approx(1 - want / heavy)
    shared = prefix(preset("tiny"))
    assert facts["all_tasks"] == shared + sum(t["total"] - shared for t in facts["tasks"].values())
    table = cli("macs", "--preset", "tiny").out
    assert f"{want / 1e6:.1f}" in table
    assert f"with M3ViT's decoder: {facts['peer']['one'] / 1e6:.0f} M" in table


def test_a_narrower_path_costs_less_below_top_k(cli: Callable[..., Any], tmp_path: Path) -> None:
    paths = dict.fromkeys(ROOMS_TASKS, ((4, 0, 2), (1, 5, 3)))
    save_checkpoint(tmp_path / "m.safetensors", MultiTaskViT(preset("micro", paths=paths, widths=(1, 2, 3))))
    totals = {}
    for width in (1, 2, 3):
        said = cli("macs", tmp_path / "m.safetensors", "--width", width, "--json")
        totals[width] = json.loads(said.out)["tasks"]["depth"]["total"]
    config = preset("micro")
    column = len(config.moe_blocks) * config.tokens * config.dim  # of a gate's matrix
    assert totals[3] - totals[2] == column
    assert totals[2] - totals[1] == column + 2 * column * config.expert_hidden


@pytest.mark.parametrize("arguments", [[], ["x.edgemtl", "--preset", "tiny"]])
def test_the_command_wants_one_thing(cli: Callable[..., Any], arguments: list[str]) -> None:
    said = cli("macs", *arguments)
    assert (said.code, said.out) == (2, "")
    assert "name one thing to count" in said.err
