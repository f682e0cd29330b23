"""Whole frames: integer reference == C simulation for every task; descriptor programs that are damaged; sanitizers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from csim_units import CSim
from hls_models import HLS, integers, lively, pictures
from numpy.typing import NDArray

from edgemtl.errors import CompileError, FrameError, TaskError
from edgemtl.fpga.contract import Header
from edgemtl.model import MultiTaskViT
from edgemtl_compiler.fpga.csim import build
from edgemtl_compiler.fpga.network import IntegerNetwork
from edgemtl_compiler.fpga.program import Program, checksum
from edgemtl_compiler.fpga.program import build as build_program

Quantised = tuple[MultiTaskViT, IntegerNetwork, NDArray[np.uint8]]
ROOT = HLS.parent
TASKS = ("semseg", "depth", "normals", "edge")


@pytest.fixture(scope="module")
def program(quantised: Quantised) -> Program:
    return build_program(quantised[1])


@pytest.mark.parametrize("task", TASKS)
def test_micro_frames(csim: CSim, quantised: Quantised, program: Program, task: str) -> None:
    _, network, images = quantised
    for image in (*images[:3], np.zeros_like(images[0]), np.full_like(images[0], 255)):
        pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
        want = network.run(pixels, task)
        got = csim.frame(program, pixels, task)
        assert got.shape == (8, 16, network.config.task(task).channels)
        np.testing.assert_array_equal(got, want)
        assert len(np.unique(want)) > 4


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size": (16, 16)},  # two tokens
        {"image_size": (48, 16), "head_stride": 16, "top_k": 4, "renormalise": True},
        {"depth": 1},  # no experts at all
        {"expert_ratio": 2.0, "head_stride": 8, "head_dim": 80, "dim": 96, "heads": 2},
        {"paths": {t: ((e, e + 1, 5), (0, 4, 5)) for e, t in enumerate(TASKS)}},
    ],
)
def test_other_shapes(csim: CSim, changes: dict[str, object]) -> None:
    model = lively("micro", **changes)
    images = pictures(33, *model.config.image_size)
    network = integers(model, images[:32])
    program = build_program(network)
    pixels = np.ascontiguousarray(images[32].transpose(1, 2, 0))
    for task in ("semseg", "edge"):
        np.testing.assert_array_equal(csim.frame(program, pixels, task), network.run(pixels, task))


def test_frames_of_a_whole_size(csim: CSim) -> None:
    """129 tokens, 192 wide and 16 experts, as `tiny` has them; two blocks of seeded weights."""
    model = lively("tiny", depth=2)
    images = pictures(33, *model.config.image_size)
    network = integers(model, images[:32])
    program, pixels = build_program(network), np.ascontiguousarray(images[32].transpose(1, 2, 0))
    for task in ("depth", "edge"):
        want = network.run(pixels, task)
        np.testing.assert_array_equal(csim.frame(program, pixels, task), want)
        assert want.std() > 100  # the map is a picture, not saturated or blank
        assert (np.abs(want.astype(np.int32)) < 32767).mean() > 0.99


def test_trunk_alone(csim: CSim, quantised: Quantised) -> None:
    """A network without heads gives the trunk's tokens, each task's through its own gates."""
    model, _, images = quantised
    network = integers(model, np.concatenate([images] * 4), host_heads=True)
    program = build_program(network)
    pixels = np.ascontiguousarray(images[2].transpose(1, 2, 0))
    maps = [csim.frame(program, pixels, task) for task in TASKS]
    for task, got in zip(TASKS, maps, strict=True):
        np.testing.assert_array_equal(got[0], network.run(pixels, task))
    assert (maps[0] != maps[1]).any()
    assert program.units == (2.0**-network.stream_bits,) * 4
    words = program.words.copy()
    words[0, 15] = 0  # raw maps are asked for, but the program writes tokens
    words[0, Header.CHECKSUM] = checksum(words)
    output = np.zeros((program.output_words(1), 2), np.uint64)
    with pytest.raises(ValueError, match="wrong size"):
        csim.raw_frame(list(program.banks), words, pixels, output, 1)


def test_a_task_switch_moves_an_index_alone(csim: CSim, quantised: Quantised, program: Program) -> None:
    """Frames of alternating tasks on one program equal frames on their own: nothing of a task stays behind."""
    _, network, images = quantised
    pixels = np.ascontiguousarray(images[4].transpose(1, 2, 0))
    for task in ("depth", "semseg", "depth", "edge", "semseg"):
        np.testing.assert_array_equal(csim.frame(program, pixels, task), network.run(pixels, task))
    assert max(program.task_bytes) < 64 * 1024


def test_wrong_frames_and_tasks(csim: CSim, program: Program) -> None:
    with pytest.raises(FrameError, match=r"wants uint8 \[32, 64, 3\]; given float64 \[32, 64, 3\]"):
        csim.frame(program, np.zeros((32, 64, 3)), "depth")  # type: ignore[arg-type]
    with pytest.raises(FrameError, match=r"given uint8 \[64, 32, 3\]"):
        csim.frame(program, np.zeros((64, 32, 3), np.uint8), "depth")
    with pytest.raises(TaskError, match="there is no task 'normal'; this program has semseg, depth"):
        csim.frame(program, np.zeros((32, 64, 3), np.uint8), "normal")


def _set(record: int, field: int, value: int) -> Callable[[NDArray[np.uint32]], None]:
    def damage(words: NDArray[np.uint32]) -> None:
        words[record, field] = value

    return damage


DAMAGE = [
    ("no descriptor program", _set(0, 0, 0)),
    ("another version", _set(0, 1, 3)),
    ("unknown descriptor", _set(0, 2, 36)),
    ("unknown descriptor", _set(0, 2, 2**31)),
    ("unknown descriptor", _set(0, 3, 9)),
    ("compiled maxima", _set(0, 5, 4112)),
    ("compiled maxima", _set(0, 6, 40)),
    ("compiled maxima", _set(0, 7, 400)),
    ("compiled maxima", _set(0, 8, 0)),
    ("compiled maxima", _set(0, 9, 17)),
    ("compiled maxima", _set(0, 10, 5)),
    ("compiled maxima", _set(0, 12, 0)),
    ("compiled maxima", _set(0, 12, 3)),
    ("compiled maxima", _set(0, 13, 2**31)),
    ("address outside the weight image", _set(0, 14, 7)),
    ("address outside the weight image", _set(2, 0, 2**32 - 1)),
    ("address outside the weight image", _set(2, 1, 2**31)),
    ("compiled maxima", _set(2, 2, 257)),
    ("wrong size", _set(2, 2, 64)),
    ("unknown descriptor", _set(5, 0, 13)),  # tokens in a program of raw maps
    ("unknown descriptor", _set(5, 0, 14)),
    ("compiled maxima", _set(0, 15, 2)),
    ("compiled maxima", _set(0, 15, 1)),  # tokens, but the table counts a raw map's channels
    ("unknown descriptor", _set(5, 0, 0)),
    ("unknown descriptor", _set(5, 1, 2)),
    ("address outside the weight image", _set(5, 2, 2**32 - 1)),
    ("address outside the weight image", _set(5, 3, 2**20)),
    ("unknown descriptor", _set(11, 4, 2048)),
    ("unknown descriptor", _set(11, 4, 40)),
]


@pytest.mark.parametrize(("message", "damage"), DAMAGE)
def test_damaged_programs(
    csim: CSim, program: Program, message: str, damage: Callable[[NDArray[np.uint32]], None]
) -> None:
    words = program.words.copy()
    damage(words)
    output = np.zeros((program.output_words(1), 2), np.uint64)
    pixels = np.zeros((32, 64, 3), np.uint8)
    header = words[0, :2].tolist() == program.words[0, :2].tolist()
    if header and (words[0, 2:4] == program.words[0, 2:4]).all():
        with pytest.raises(ValueError, match="checksum"):
            csim.raw_frame(list(program.banks), words, pixels, output, 1)
    words[0, Header.CHECKSUM] = checksum(words)
    with pytest.raises(ValueError, match=message):
        csim.raw_frame(list(program.banks), words, pixels, output, 1)
    assert not output.any()


def test_wrong_buffers(csim: CSim, program: Program) -> None:
    output = np.zeros((program.output_words(1), 2), np.uint64)
    pixels = np.zeros((32, 64, 3), np.uint8)
    banks = list(program.banks)
    with pytest.raises(ValueError, match="no such task"):
        csim.raw_frame(banks, program.words, pixels, output, 4)
    with pytest.raises(ValueError, match="wrong size"):
        csim.raw_frame(banks, program.words, pixels[:31], output, 1)
    with pytest.raises(ValueError, match="wrong size"):
        csim.raw_frame(banks, program.words, pixels, output[:-1], 1)
    with pytest.raises(ValueError, match="address outside"):
        csim.raw_frame([b[:-1] for b in banks], program.words, pixels, output, 1)
    with pytest.raises(ValueError, match="address outside"):
        csim.raw_frame(banks, program.words[:-1], pixels, output, 1)


def test_kernels_that_do_not_compile(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="apt-get install g\\+\\+"):
        build(HLS, tmp_path / "none.so", compiler="no-such-compiler")
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler: apt-get install g++")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "bad.cpp").write_text("int f() { int unused; return 0; }")
    with pytest.raises(CompileError, match="unused"):
        build(tmp_path, tmp_path / "bad.so")


def test_clang_agrees(tmp_path: Path, quantised: Quantised, program: Program) -> None:
    if not shutil.which("clang++"):
        pytest.skip("no second compiler: apt-get install clang")
    other = CSim(build(HLS, tmp_path / "clang.so", compiler="clang++"))
    pixels = np.ascontiguousarray(quantised[2][0].transpose(1, 2, 0))
    np.testing.assert_array_equal(other.frame(program, pixels, "depth"), quantised[1].run(pixels, "depth"))


def test_the_shim_agrees_with_xilinx_headers(tmp_path: Path, quantised: Quantised, program: Program) -> None:
    """The same kernels on the Apache-licensed ap_int.h that the wheel of hls4ml carries."""
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("no Xilinx headers: pip install --no-deps hls4ml==1.3.0")
    types = Path(next(iter(spec.submodule_search_locations))) / "templates" / "vivado" / "ap_types"
    shutil.copytree(types, tmp_path / "xilinx", ignore=shutil.ignore_patterns("hls_*", "utils"))
    other = CSim(build(HLS, tmp_path / "xilinx.so", headers=tmp_path / "xilinx"))
    for task in TASKS:
        pixels = np.ascontiguousarray(quantised[2][0].transpose(1, 2, 0))
        np.testing.assert_array_equal(other.frame(program, pixels, task), quantised[1].run(pixels, task))


SANITIZED = """
import sys, numpy as np
from pathlib import Path
from csim_units import CSim
from edgemtl.fpga.contract import Header
from edgemtl_compiler.fpga.program import checksum
sim, data = CSim(Path(sys.argv[1])), np.load(sys.argv[2])
banks = [b.copy() for b in data["banks"]]  # apart, so that running off one is seen
words, pixels, want = data["words"], data["pixels"], data["want"]
output = np.zeros((len(want), 2), np.uint64)
sim.raw_frame(banks, words, pixels, output, 1)
assert (output == want).all(), "the sanitized frame differs"
rng, refused = np.random.default_rng(0), 0
for attempt in range(400):
    bad, broken = words.copy(), banks
    if attempt % 4:  # a field of the program, large, small, or off by one
        at = rng.integers(bad.shape[0]), rng.integers(bad.shape[1])
        near = int(bad[at]) + int(rng.integers(-2, 3))
        bad[at] = rng.choice([near % 2**32, rng.integers(2**32), rng.integers(300)])
    else:  # tables of the weight image
        broken = [b.copy() for b in banks]
        for b in broken:
            b[rng.integers(len(b), size=200)] = rng.integers(256, size=(200, 16))
    bad[0, Header.CHECKSUM] = checksum(bad)
    try:
        sim.raw_frame(broken, bad, pixels, output, 1)
    except ValueError:
        refused += 1
print("refused", refused)
"""


def test_sanitizers_find_nothing(tmp_path: Path, quantised: Quantised, program: Program) -> None:
    """A frame and 400 damaged programs and images under AddressSanitizer and UBSan, with packed multipliers."""
    if not shutil.which("g++"):
        pytest.skip("no C++ compiler: apt-get install g++")
    library = build(HLS, tmp_path / "asan.so", sanitize=True, packed=True, compiler="g++")
    pixels = np.ascontiguousarray(quantised[2][0].transpose(1, 2, 0))
    want = quantised[1].run(pixels, "depth")
    words = np.zeros(program.output_words(1) * 8, np.int16)
    words[: want.size] = want.reshape(-1)
    np.savez(
        tmp_path / "data.npz", banks=program.banks, words=program.words, pixels=pixels,
        want=words.view(np.uint64).reshape(-1, 2),
    )  # fmt: skip
    runtime = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    env = {
        **os.environ,
        "LD_PRELOAD": runtime.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", SANITIZED, str(library), str(tmp_path / "data.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    refused = int(done.stdout.split()[1])
    assert 100 < refused < 400
