"""The camera demo as a user runs it, on a small bundle and a small clip, without a screen."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mjpeg_stream import Stream

DEMO = Path(__file__).parents[2] / "demos" / "camera.py"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """40 frames of noise at 10 frames/s."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(40):
        writer.write(rng.integers(0, 256, (48, 64, 3), np.uint8))
    writer.release()
    return path


def demo(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


def test_cycle_shows_every_task_and_reports(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = demo(bundle, clip, "--cycle", "1", "-o", out)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "report.json").read_text())
    assert found["frames"] == 40
    tasks = ["semseg", "depth", "normals", "edge"]
    assert [s["to"] for s in found["switches"]] == [[t] for t in tasks]
    assert list(found["resident_bytes"]) == tasks
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    video = cv2.VideoCapture(str(out / "demo.mp4"))
    frames = 0
    while video.read()[0]:
        frames += 1
    assert frames == 40
    sheet = cv2.imread(str(out / "sheet.png"))
    assert sheet is not None
    assert sheet.std() > 10
    for words in ("p95 ms", "resident weights", "task switches", "sheet.png"):
        assert words in done.stdout


def test_limit_and_named_tasks(bundle: Path, clip: Path, tmp_path: Path) -> None:
    done = demo(bundle, clip, "--task", "depth", "--limit", "5", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["frames"], list(found["resident_bytes"])) == (5, ["depth"])


def test_a_picture_that_was_left_out_shows_in_the_exit_code(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "a.png"), np.zeros((48, 64, 3), np.uint8))
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:40])
    done = demo(bundle, tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 3, done.stderr
    assert "b.png is cut off before its end" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--task", "dept"], "did you mean 'depth'"),
        (["--backend", "gpu"], "gpu"),
        (["--memory-budget", "1kB"], "budget"),
        (["--policy", "oldest"], "--policy is newest or all, not 'oldest'"),
        (["--depth-range", "8,0"], "--depth-range is two ascending depths in metres like 0.5,6"),
        (["--colormap", "jet"], "there is no colour map 'jet'"),
        (["--address", "example.org"], "is no address to serve a page on"),
        (["--record", "seen.gif"], "a video is .mp4"),
        (["--rerun", "seen.txt"], "like seen.rrd"),
        (["--window"], "use --web"),
    ],
)
def test_refusals_are_one_sentence(
    bundle: Path, clip: Path, tmp_path: Path, words: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    done = demo(bundle, clip, *words, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_source(bundle: Path, tmp_path: Path) -> None:
    done = demo(bundle, tmp_path / "none.mp4", "-o", tmp_path / "out")
    assert done.returncode != 0
    assert "none.mp4" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_shown_is_recorded_at_its_own_speed(bundle: Path, clip: Path, tmp_path: Path) -> None:
    """Four seconds of clip, unseen: nothing is dropped, and no output folder is needed."""
    done = demo(bundle, clip, "--record", tmp_path / "seen.avi")
    assert done.returncode == 0, done.stderr
    video = cv2.VideoCapture(str(tmp_path / "seen.avi"))
    assert (video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)) == (40, 10)
    assert not (tmp_path / "demo-out").exists()
    assert "seen.avi" in done.stdout


@pytest.mark.parametrize("size", [(1, 4096), (4096, 1)])
def test_a_picture_of_extreme_size(bundle: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), np.full((*size, 3), 90, np.uint8))
    words = (bundle, tmp_path / "in.png", "--record", tmp_path / "seen.avi", "-o", tmp_path / "out")
    done = demo(*words)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "sheet.png").exists()
    assert cv2.VideoCapture(str(tmp_path / "seen.avi")).read()[0]
    done = demo(*words)
    assert done.returncode == 2
    assert "exists; give another name, or --overwrite to replace it" in done.stderr
    assert demo(*words, "--overwrite").returncode == 0


@pytest.mark.parametrize("watched", [True, False])
def test_a_full_disk_ends_the_recording_not_what_is_watched(
    bundle: Path, clip: Path, tmp_path: Path, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python loads sitecustomize at its start; this one says that every disk is full."""
    full = "import shutil, types\nshutil.disk_usage = lambda _: types.SimpleNamespace(free=0)\n"
    (tmp_path / "sitecustomize.py").write_text(full)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    web = ["--web", "--address", "127.0.0.1:0", "--limit", "5"] if watched else []
    done = demo(bundle, clip, *web, "--record", tmp_path / "seen.avi")
    assert "seen.avi ends here: its disk has less than" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == (0 if watched else 2)
    assert ("measured on this machine" in done.stdout) == watched


@pytest.mark.slow
def test_rerun_holds_every_frame(bundle: Path, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("rerun", reason='rerun-sdk is not installed: pip install "edgemtl[rerun]"')
    done = demo(bundle, clip, "--cycle", "1", "--rerun", tmp_path / "seen.rrd", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "seen.rrd").read_bytes()
    assert data[:3] == b"RRF"
    for name in (b"/camera", b"/depth", b"/semseg", b"/normals", b"/edge", b"/figures"):
        assert name in data


def test_a_stream_that_dies_is_told_and_the_demo_goes_on(bundle: Path, tmp_path: Path) -> None:
    with Stream(fps=30) as stream:
        command = [sys.executable, str(DEMO), str(bundle), stream.url, "-o", str(tmp_path), "--limit", "60"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 120
        while not (tmp_path / "demo.mp4").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        stream.kill()
        time.sleep(0.3)
        assert child.poll() is None, "it waits for the stream"
        stream.start()
        _, stderr = child.communicate(timeout=120)
    assert child.returncode == 0, stderr
    assert json.loads((tmp_path / "report.json").read_text())["frames"] == 60
    assert "127.0.0.1" in stderr
    assert "trying again" in stderr


def test_ctrl_c_keeps_what_was_seen(bundle: Path, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    image = np.zeros((480, 640, 3), np.uint8)
    for i in range(3000):
        cv2.imwrite(str(folder / f"{i:05d}.bmp"), image[:48, :64])
    out = tmp_path / "out"
    command = [sys.executable, str(DEMO), str(bundle), str(folder), "-o", str(out)]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "demo.mp4").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    stdout, stderr = child.communicate(timeout=120)
    assert child.returncode == 0, stderr
    assert "stopped" in stderr
    assert 0 < json.loads((out / "report.json").read_text())["frames"] < 3000
    assert "pictures" in stdout
