"""What the command line means, and every way to get it wrong: one sentence before anything runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgemtl.bench import choice
from edgemtl.bench.engines import ENGINES
from edgemtl.errors import ConfigError


def test_families_mean_their_engines_of_the_precisions() -> None:
    assert choice.engines("edgemtl,onnxruntime", "fp32") == ("edgemtl", "onnxruntime", "onnxruntime-dense")
    both = choice.engines("edgemtl, openvino", "fp32,int8")
    assert both == (
        "edgemtl",
        "edgemtl-int8",
        "openvino",
        "openvino-dense",
        "openvino-int8",
        "openvino-int8-dense",
    )
    assert choice.engines("openvino-dense", "int8") == ("openvino-dense",)
    everything = choice.engines("", "fp32,int8")
    assert everything == tuple(ENGINES)


@pytest.mark.parametrize(
    ("words", "precision", "said"),
    [
        ("openvin", "fp32", r"no engine 'openvin' \(did you mean 'openvino'\?\); choose of edgemtl, onnxruntime"),
        ("edgemtl", "fp8", "--precision is fp32, int8 or fp32,int8, not 'fp8'"),
        ("edgemtl", "", "--precision is fp32, int8 or fp32,int8, not ''"),
    ],
)
def test_engines_that_are_none(words: str, precision: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        choice.engines(words, precision)


def test_threads() -> None:
    assert choice.threads("1, 2,2") == (1, 2)
    for text in ("", "0", "two", "-1", "1.5", "2000", "²"):
        with pytest.raises(ConfigError, match="whole numbers from 1"):
            choice.threads(text)


def test_the_instructions_that_all_are_held_to() -> None:
    assert (choice.cpu(""), choice.cpu("avx2")) == ("cpu", "x86_64-avx2")
    with pytest.raises(ConfigError, match="--cpu is avx2, not 'sse2'; leave it out"):
        choice.cpu("sse2")


def test_files_that_can_be_written_are_left_as_they_were(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("of an earlier run")
    for path in (kept, tmp_path / "new" / "o.jsonl", None):
        choice.file("--json", path)
    assert kept.read_text() == "of an earlier run"


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--out .* cannot be written: Is a directory"):
        choice.file("--out", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="--json .* cannot be written: (Not a directory|File exists)"):
        choice.file("--json", tmp_path / "file" / "run.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_files_in_a_folder_without_leave(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="Permission denied"):
        choice.file("--json", tmp_path / "run.json")
