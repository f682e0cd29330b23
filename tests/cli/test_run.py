"""`edgemtl run`: every kind of source and output, the report, and one sentence for every mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mjpeg_stream import Stream

from edgemtl.bundle import models
from edgemtl.media import sources
from edgemtl.media.sources import Frame, Source

FRAME = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "in.png"
    cv2.imwrite(str(path), FRAME)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (80, 48))
    for i in range(6):
        writer.write(np.roll(FRAME, i, 1))
    writer.release()
    return path


@pytest.fixture
def run(cli: Any, plain: Path) -> Any:
    """`edgemtl run` on torch, one thread."""
    return lambda *args: cli("run", plain, "--backend", "torch", "--threads", 1, *args)


def video_frames(path: Path) -> list[Any]:
    with sources.Video(path) as source:
        return [f.image for f in source]


def test_a_picture(run: Any, image: Path, tmp_path: Path) -> None:
    said = run(image, "--task", "depth", "-o", tmp_path / "out.png")
    assert said.code == 0, said.err
    assert cv2.imread(str(tmp_path / "out.png")).shape == (48, 80, 3)
    for words in (
        "ms per frame",
        "prefix",
        "depth",
        "postprocess",
        "total",
        "p99",
        "1 frame(s)",
        "wrote ",
        "not measured",
    ):
        assert words in said.out
    assert "torch was asked for" in said.out


@pytest.mark.parametrize(
    ("view", "tasks", "shape"),
    [
        ("overlay", ["semseg"], (48, 80)),
        ("map", ["depth", "edge"], (66, 160)),
        ("sheet", ["depth"], (66, 160)),
        ("sheet", ["semseg", "depth"], None),
    ],
)
def test_views(run: Any, image: Path, tmp_path: Path, view: str, tasks: list[str], shape: Any) -> None:
    wanted = [a for t in tasks for a in ("--task", t)]
    said = run(image, *wanted, "--view", view, "-o", tmp_path / "out.jpg", "--color-map", "turbo")
    assert said.code == 0, said.err
    got = cv2.imread(str(tmp_path / "out.jpg"))
    assert shape is None or got.shape == (*shape, 3)


def test_a_video(run: Any, video: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    said = run(video, "--task", "depth", "--task", "semseg", "-o", out, "--json", "--depth-range", "0.5,6")
    assert said.code == 0, said.err
    report = json.loads(said.out)
    assert (report["frames"], report["frames_in_source"], report["stopped"]) == (6, 6, False)
    assert set(report["latency_ms"]) == {"preprocess", "prefix", "depth", "semseg", "postprocess", "total"}
    assert all(set(v) == {"first", "p50", "p95", "p99"} for v in report["latency_ms"].values())
    assert report["switches"][0]["to"] == ["depth", "semseg"]
    assert report["residency"]["origin"] == "not measured"
    assert report["residency"]["resident_bytes"] is None
    assert report["residency"]["mapped_bytes"] < report["residency"]["model_bytes"]
    assert len(video_frames(out)) == 6


def test_a_folder(run: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "ba":
        cv2.imwrite(str(folder / f"{name}.png"), FRAME)
    said = run(folder, "--task", "normals", "-o", out)
    assert said.code == 0, said.err
    assert sorted(p.name for p in out.iterdir()) == ["a.png.normals.png", "b.png.normals.png"]
    said = run(folder, "--task", "normals", "-o", tmp_path / "raw", "--raw", "--limit", 1)
    assert said.code == 0, said.err
    (stored,) = (tmp_path / "raw").iterdir()
    with np.load(stored) as maps:
        assert maps["normals"].shape == (48, 80, 3)


def test_a_folder_with_a_bad_picture_goes_on_and_exits_with_3(run: Any, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), FRAME)
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes()[:500])
    (folder / "._a.png").write_bytes(b"\0\5\x16\7" + bytes(60))
    (folder / "d.tif").write_bytes(cv2.imencode(".tif", np.zeros((2, 16400, 3), np.uint8))[1].tobytes())
    said = run(folder, "--task", "depth", "-o", out)
    assert said.code == 3, said.err
    assert sorted(p.name for p in out.iterdir()) == ["a.png.depth.png", "c.png.depth.png"]
    assert "left out 2, which cannot be read:" in said.out
    assert "b.png is cut off before its end" in said.out
    assert "d.tif: the frame has shape (2, 16400, 3)" in said.out


def test_a_damaged_frame_of_a_video(run: Any, video: Path, tmp_path: Path) -> None:
    data = bytearray(video.read_bytes())
    at = [m.start() for m in re.finditer(b"\xff\xd8\xff", data)][2]
    size = int.from_bytes(data[at - 4 : at], "little")  # a RIFF chunk states it
    data[at : at + size] = bytes(size)
    video.write_bytes(data)
    said = run(video, "--task", "depth", "--json")
    assert said.code == 3, said.err
    report = json.loads(said.out)
    assert (report["frames"], report["left_out"]) == (5, 1)
    assert "frame 2 of" in report["left_out_because"][0]


def test_an_unrelated_file_is_kept(run: Any, image: Path, tmp_path: Path) -> None:
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "in.png").write_bytes(b"mine")
    assert run(image, "--task", "depth", "-o", tmp_path / "keep").code == 0
    assert (tmp_path / "keep" / "in.png").read_bytes() == b"mine"
    said = run(image, "--task", "depth", "-o", tmp_path / "keep")
    assert (said.code, "in.png.depth.png exists; give another name, or --overwrite" in said.err) == (2, True)
    assert run(image, "--task", "depth", "-o", tmp_path / "keep", "--overwrite").code == 0


def test_raw_maps(run: Any, image: Path, tmp_path: Path) -> None:
    assert run(image, "--task", "depth", "--task", "semseg", "--raw", "-o", tmp_path / "o.npz").code == 0
    with np.load(tmp_path / "o.npz") as maps:
        assert (maps["depth"].dtype, maps["semseg"].dtype) == (np.float32, np.uint8)
    assert run(image, "--task", "depth", "--raw", "-o", tmp_path / "o.npy").code == 0
    assert np.load(tmp_path / "o.npy").shape == (48, 80)
    said = run(image, "--task", "depth", "--task", "edge", "--raw", "-o", tmp_path / "o2.npy")
    assert (said.code, "use .npz" in said.err) == (2, True)


def test_only_timing(run: Any, video: Path) -> None:
    said = run(video, "--task", "edge", "--limit", 2)
    assert said.code == 0
    assert "2 of 6 frame(s)" in said.out
    assert "wrote" not in said.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "choose what to run with --task, one or more of: semseg, depth, normals, edge"),
        (["--task", "dept"], "did you mean 'depth'"),
        (["--task", "depth", "-o", "{tmp}/o.gif"], "results go to .png"),
        (["--task", "depth", "-o", "{tmp}/no/o.png"], "mkdir -p"),
        (["--task", "depth", "-o", "{image}"], "would overwrite the source"),
        (["--task", "depth", "-o", "{bundle}"], "would overwrite the bundle"),
        (["--task", "depth", "-o", "{tmp}/o.npz"], "results go to .png"),
        (["--task", "depth", "--raw", "-o", "{tmp}/o.png"], "results go to .npz"),
        (["--task", "depth", "--view", "x"], "--view is map, overlay or sheet, not 'x'"),
        (["--task", "depth", "--color-map", "jet"], "no colour map 'jet'"),
        (["--task", "depth", "--depth-range", "6,1"], "two ascending depths in metres like 0.5,6"),
        (["--task", "depth", "--depth-range", "a"], "two ascending depths"),
        (["--task", "depth", "--memory-budget", "1kB"], "more than the memory budget of 1.0 kB"),
    ],
)
def test_mistakes(run: Any, plain: Path, image: Path, tmp_path: Path, args: list[str], words: str) -> None:
    filled = [a.format(tmp=tmp_path, image=image, bundle=plain) for a in args]
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    said = run(image, *filled)
    assert said.code == 2
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_one_picture_of_many_frames(run: Any, video: Path, tmp_path: Path) -> None:
    said = run(video, "--task", "depth", "-o", tmp_path / "o.png")
    assert (said.code, "the source is a video: give a folder, or a video" in said.err) == (2, True)


def test_frames_of_two_sizes_make_no_video(run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), FRAME)
    cv2.imwrite(str(folder / "b.png"), FRAME[:20])
    said = run(folder, "--task", "depth", "-o", tmp_path / "o.avi")
    assert (said.code, "b.png has another size" in said.err) == (2, True)
    assert len(video_frames(tmp_path / "o.avi")) == 1, "what was written is finished"


@pytest.mark.parametrize("how", ["--json", "--raw"])
def test_an_address_keeps_its_secrets(run: Any, how: str) -> None:
    with Stream() as stream:
        place = stream.url.removeprefix("http://")
        for address in (f"http://admin:secret@{place}", f"http://{place}?token=secret"):
            said = run(address, "--task", "depth", "--limit", 2, how)
            assert said.code == 0, said.err
            assert "127.0.0.1" in said.out
            assert "secret" not in said.out + said.err
            assert "admin" not in said.out + said.err
        stream.kill()
        said = run(f"http://admin:se/cret@{place}", "--task", "depth")
        assert said.code == 2
        assert "cret" not in said.out + said.err


@pytest.mark.parametrize("live", [False, True])
def test_ctrl_c_finishes_the_video_and_reports(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, live: bool
) -> None:
    class Interrupted(Source):
        def __iter__(self) -> Any:
            for i in range(3):
                yield Frame(FRAME, 0.0, str(i))
            raise KeyboardInterrupt

    source = Interrupted("camera 0", "camera" if live else "video", fps=10)
    monkeypatch.setattr(sources, "open_source", lambda _: source)
    said = run("0", "--task", "depth", "-o", tmp_path / "o.avi")
    assert said.code == (0 if live else 130), "stopping a camera is how it ends; a file was cut short"
    assert "3 frame(s) of camera 0, stopped" in said.out
    assert len(video_frames(tmp_path / "o.avi")) == 3


def test_sigterm_finishes_the_video_too(plain: Path, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "long.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (80, 48))
    for _ in range(3000):
        writer.write(FRAME)
    writer.release()
    out = tmp_path / "o.avi"
    command = [sys.executable, "-m", "edgemtl", "run", plain, tmp_path / "long.avi", "--task", "depth", "-o", out]
    process = subprocess.Popen([*map(str, command), "--backend", "torch", "--threads", "1"], stdout=subprocess.PIPE)
    until = time.monotonic() + 100
    while not (out.exists() and out.stat().st_size > 30_000):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopped" in said
    assert 0 < len(video_frames(out)) < 3000


@pytest.mark.parametrize("backend", ["tvm-cpu", "onnxruntime", "torch"])
def test_all_backends_by_command(cli: Any, bundle: Path, image: Path, tmp_path: Path, backend: str) -> None:
    said = cli("run", bundle, image, "--task", "depth", "--backend", backend, "--raw", "-o", tmp_path / "o.npy")
    if said.code == 2 and ("no program" in said.err or "not installed" in said.err):
        pytest.skip(said.err)
    assert said.code == 0, said.err
    assert np.load(tmp_path / "o.npy").shape == (48, 80)


TORCH = ("--task", "depth", "--backend", "torch", "--threads", 1)


def test_one_word_is_the_source_and_two_begin_with_the_bundle(
    cli: Any, installed: Path, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.png"
    for words in ([image], [models.DEFAULT, image], [installed / f"{models.DEFAULT}.edgemtl", image]):
        said = cli("run", *words, *TORCH, "-o", out, "--overwrite")
        assert said.code == 0, said.err
        assert cv2.imread(str(out)).shape == FRAME.shape
    for words in ([models.DEFAULT], [installed / f"{models.DEFAULT}.edgemtl"]):
        said = cli("run", *words, *TORCH)
        assert said.code == 2
        assert "Type a source after it: an image" in said.err
    said = cli("run", image, image, *TORCH)
    assert (said.code, "in.png" in said.err) == (2, True)
    said = cli("run", "a", "b", "c", *TORCH)
    assert (said.code, "takes a bundle and a source, not 3 words" in said.err) == (2, True)
    said = cli("run", models.DEFAULT, image, *TORCH, "-o", installed / f"{models.DEFAULT}.edgemtl")
    assert (said.code, "would overwrite the bundle" in said.err) == (2, True)


def test_without_a_default_model_the_refusal_says_what_to_type(cli: Any, image: Path) -> None:
    said = cli("run", image, *TORCH)
    assert said.code == 2
    assert "pip install edgemtl-models" in said.err
