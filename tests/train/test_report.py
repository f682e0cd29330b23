"""A bar on a terminal, plain lines elsewhere, and a log that is cut back to where a run resumes."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from edgemtl.train.report import Log, Reporter


@pytest.mark.parametrize("terminal", [True, False])
def test_reporter(terminal: bool) -> None:
    out = io.StringIO()
    with Reporter(Console(file=out, force_terminal=terminal, width=100)) as reporter:
        reporter.stage("open", 3, 10)
        reporter.step(32)
        reporter.losses(4, {"loss": 1.5, "depth": 0.25})
        reporter.line("a warning [1]")
    text = out.getvalue()
    assert "loss 1.5 depth 0.25" in text
    assert "a warning [1]" in text
    assert ("open 4/10 loss" in text) is not terminal
    assert ("\x1b[" in text) is terminal
    assert ("4/10" in text) is True


def test_log_is_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = Log(path)
    log.write("step", step=1)
    keep = log.size
    log.write("step", step=2)
    log.close()
    log = Log(path, keep)
    log.write("step", step=20)
    log.close()
    assert path.read_text() == '{"type": "step", "step": 1}\n{"type": "step", "step": 20}\n'
