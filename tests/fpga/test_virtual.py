"""The virtual board is strict where a board is silent; the driver's frames through it equal the integer reference."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BackendError, BoardError, FrameError, TaskError
from edgemtl.fpga import program as fpga_program
from edgemtl.fpga import registers, simulation
from edgemtl.fpga.counters import UnitCount
from edgemtl.fpga.driver import Driver
from edgemtl.fpga.simulation import CSimKernel
from edgemtl.fpga.virtual import BASE, Memory, VirtualBoard

TASKS = ("semseg", "depth", "normals", "edge")


class Echo:
    """A kernel that shows which memory it was given: every output word holds the sums of what it read."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.status = 0

    def __call__(
        self, banks: Sequence[Memory], program: Memory, pixels: Memory, output: Memory, task: int, counts: Memory
    ) -> int:
        assert self.gate.wait(20)
        counts.view(np.uint32)[:2] = 1, task
        output.view(np.int16)[:] = (int(pixels.sum(dtype=np.int64)) + task) % 30000
        return self.status


@pytest.fixture(scope="module")
def files(integer_bundle: Path) -> Iterator[tuple[fpga_program.Program, fpga_program.Golden]]:
    with Bundle.open(integer_bundle) as bundle:
        yield fpga_program.load(bundle), fpga_program.golden(bundle)


@pytest.fixture
def echo(files: Any) -> tuple[Echo, VirtualBoard, Driver]:
    made = Echo()
    board = VirtualBoard(made)
    return made, board, Driver(board, files[0], timeout_s=0.2)


def picture(program: fpga_program.Program, value: int) -> Any:
    return np.full((*program.image_size, 3), value, np.uint8)


@pytest.mark.parametrize("task", TASKS)
def test_frames_equal_the_goldens(kernel: CSimKernel, files: Any, task: str) -> None:
    program, golden = files
    driver = Driver(VirtualBoard(kernel), program, timeout_s=60)
    for pixels, want in zip(golden.pixels, golden.maps[task], strict=True):
        np.testing.assert_array_equal(driver.frame(pixels, task), want)
    driver.close()


def test_a_switch_writes_registers_alone(kernel: CSimKernel, files: Any) -> None:
    """In mid-clip, with frames handed over before the last one is fetched from its slot."""
    program, golden = files
    board = VirtualBoard(kernel)
    driver = Driver(board, program, timeout_s=60)
    steady = []
    for i in (0, 1, 0):
        before = board.written
        driver.frame(golden.pixels[i], "normals")
        steady.append(board.written - before)
    image = driver.counters.image_bytes
    assert image == program.banks.nbytes + program.words.nbytes
    for task in ("depth", "semseg", "depth", "edge", "normals", "semseg"):
        before, written = driver.counters.register_bytes, board.written
        for i in (0, 1):
            np.testing.assert_array_equal(driver.frame(golden.pixels[i], task), golden.maps[task][i])
        assert driver.counters.register_bytes - before <= 2 * 4 * 7
        assert 0 < board.written - written - 2 * steady[-1] <= 64 << 10  # counted by the board, not by the driver
    assert driver.counters.image_bytes == image
    assert driver.counters.frames == 15


def test_what_a_task_does_not_need_is_not_read(kernel: CSimKernel, files: Any, micro: Any) -> None:
    """Other tasks' gates and heads, and experts off the path of depth, may be rubbish."""
    program, golden = files
    banks, words = program.banks.copy(), program.words
    tables, ops = words[1 : 1 + len(TASKS)].tolist(), words[1 + len(TASKS) :].tolist()
    for name, (base, size, *_) in zip(program.tasks, tables, strict=True):
        if name != "depth":
            banks[:, base : base + size] = 255
    layers = [(at, stride) for code, _, at, _, _, stride, *_ in ops if code == 8]
    for (at, stride), path in zip(layers, micro.config.path("depth"), strict=True):
        for expert in {*range(micro.config.experts)} - {*path}:
            banks[:, at + expert * stride : at + (expert + 1) * stride] = 255
    driver = Driver(VirtualBoard(kernel), replace(program, banks=banks), timeout_s=60)
    for pixels, want in zip(golden.pixels, golden.maps["depth"], strict=True):
        np.testing.assert_array_equal(driver.frame(pixels, "depth"), want)
    with pytest.raises(BoardError, match="a value in the weight image outside its range"):
        driver.frame(golden.pixels[0], "edge")


def test_double_buffers(echo: Any, files: Any) -> None:
    """While one frame is on the kernel, the host may keep the map of the one before; slots alternate."""
    _, _, driver = echo
    maps = []
    driver.start(picture(files[0], 0), "depth")
    for value in (1, 2, 3):
        maps.append(driver.finish())
        driver.start(picture(files[0], value), "depth")
    maps.append(driver.finish())
    count = files[0].image_size[0] * files[0].image_size[1] * 3
    assert [int(m.flat[0]) for m in maps] == [(v * count + 1) % 30000 for v in range(4)]
    with pytest.raises(BoardError, match="no frame is on the accelerator"):
        driver.finish()
    driver.start(picture(files[0], 0), "depth")
    with pytest.raises(BoardError, match="still on the accelerator"):
        driver.start(picture(files[0], 0), "depth")


def test_the_host_may_work_while_the_kernel_does(echo: Any, files: Any) -> None:
    made, board, driver = echo
    made.gate.clear()
    driver.timeout_s = 20
    driver.start(picture(files[0], 5), "depth")
    assert board.read(registers.CONTROL) == registers.AP_START
    made.gate.set()
    assert driver.finish().shape == (*files[0].map_size, 1)
    assert board.read(registers.CONTROL) == registers.AP_IDLE  # done was cleared by reading it


def test_counters_of_the_frame_that_was_fetched(echo: Any, files: Any) -> None:
    """Each map comes with its own counts; what counts no cycles is not measured."""
    _, _, driver = echo
    assert driver.last_count is None
    for task, steps in (("depth", 1), ("edge", 3)):
        driver.frame(picture(files[0], 0), task)
        count = driver.last_count
        assert count is not None
        assert count.units == {"program": UnitCount(1, steps, None, 0, 0)}
        assert (count.origin, count.cycles_origin, count.cycles) == ("csim", "not measured", None)


def test_a_stuck_kernel(echo: Any, files: Any) -> None:
    _, board, driver = echo
    want = driver.frame(picture(files[0], 9), "semseg")
    board.faults.add("stuck")
    with pytest.raises(BoardError, match=r"did not finish task 'semseg' within 0.2 s .*0x1: started 1, idle 0.*reset"):
        driver.frame(picture(files[0], 9), "semseg")
    np.testing.assert_array_equal(driver.frame(picture(files[0], 9), "semseg"), want)


def test_a_slow_kernel_is_a_stuck_one(echo: Any, files: Any) -> None:
    made, _, driver = echo
    made.gate.clear()
    threading.Timer(0.5, made.gate.set).start()
    with pytest.raises(BoardError, match="did not finish"):
        driver.frame(picture(files[0], 1), "depth")
    assert driver.frame(picture(files[0], 0), "depth").max() == 1


def test_a_kernel_that_refuses_or_fails(echo: Any, files: Any) -> None:
    made, _, driver = echo
    made.status = 5
    with pytest.raises(BoardError, match="refused the frame: a damaged descriptor program"):
        driver.frame(picture(files[0], 1), "depth")
    made.status = 0
    made.gate = None
    with pytest.raises(BoardError, match="simulated kernel failed"):
        driver.frame(picture(files[0], 1), "depth")
    made.gate = threading.Event()
    made.gate.set()
    assert driver.frame(picture(files[0], 0), "depth").max() == 1


def test_a_forgotten_flush_shows(echo: Any, files: Any) -> None:
    _, board, driver = echo
    full = driver.frame(picture(files[0], 7), "depth")
    driver._pixels[0][:] = 0  # without a flush the device still has the sevens
    driver._registers.pop("pixels")
    driver._set("pixels", driver._pixels[0].device_address)
    board.write(registers.CONTROL, registers.AP_START)
    for _ in range(1000):
        if board.read(registers.CONTROL) & registers.AP_DONE:
            break
        time.sleep(0.001)
    stale = np.asarray(driver._outputs[0]).copy()
    driver._outputs[0].invalidate()
    assert np.asarray(driver._outputs[0]).flat[0] == full.flat[0]
    assert stale.flat[0] == full.flat[0]
    buffer = board.allocate((4,), np.int32)
    buffer[:] = 3
    buffer.invalidate()
    assert not buffer.any()
    with pytest.raises(BoardError, match="no buffer of the board"):
        buffer[:2].flush()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pixels", BASE + 8, "not aligned to 16 bytes"),
        ("pixels", BASE - 16, "lie in no buffer"),
        ("output", 0, "register output names .* bytes at 0x0, which lie in no buffer"),
        ("w3", 1 << 36, "more than 36 bits"),
        ("counters", BASE - 16, "register counters names 288 bytes"),
        ("quads", 1 << 20, "register w0 names 16777216 bytes"),
        ("output_words", 1 << 31, "register output names 34359738368 bytes"),
    ],
)
def test_bad_addresses(echo: Any, files: Any, name: str, value: int, message: str) -> None:
    _, board, driver = echo
    good = driver.frame(picture(files[0], 2), "depth")
    register = registers.REGISTERS[name]
    for half in range(register.bits // 32):
        board.write(register.offset + 4 * half, value >> 32 * half & 0xFFFFFFFF)
    with pytest.raises(BoardError, match=message):
        board.write(registers.CONTROL, registers.AP_START)
    board.reset()
    driver._configure()
    np.testing.assert_array_equal(driver.frame(picture(files[0], 2), "depth"), good)


def test_registers_are_those_of_the_map(echo: Any) -> None:
    _, board, _ = echo
    for offset in (0x1, 0x2C, 0x1000, -4):
        with pytest.raises(BoardError, match="no register at offset"):
            board.read(offset)
    with pytest.raises(BoardError, match="can be read only"):
        board.write(registers.RETURN, 1)
    with pytest.raises(BoardError, match="takes 32 bits"):
        board.write(registers.REGISTERS["task"].offset, 1 << 32)
    board.write(registers.REGISTERS["task"].offset, 7)
    assert board.read(registers.REGISTERS["task"].offset) == 7


def test_memory(files: Any) -> None:
    board = VirtualBoard(Echo(), cma_bytes=5 * 4096)
    held = [board.allocate((4000,), np.uint8) for _ in range(5)]
    assert len({b.device_address for b in held}) == 5
    assert all(b.device_address % 4096 == 0 and b.device_address >= 1 << 32 for b in held)
    with pytest.raises(BoardError, match="memory is full: 4096 bytes needed, 0 of 20480 free"):
        board.allocate((1,), np.uint8)
    for i in (1, 3):
        held[i].freebuffer()
        held[i].freebuffer()
    with pytest.raises(BoardError, match="8192 bytes needed, 8192 of 20480 free"):
        board.allocate((4097,), np.uint8)
    assert board.allocate((9,), np.int64).device_address == held[1].device_address
    with pytest.raises(BoardError, match="36 address bits"):
        VirtualBoard(Echo(), base=(1 << 36) - 4096)
    small = VirtualBoard(Echo(), cma_bytes=-(-files[0].banks.nbytes // 4096) * 4096)
    whole = small.free_bytes
    with pytest.raises(BoardError, match="memory is full"):
        Driver(small, files[0])
    assert small.free_bytes == whole  # what was allocated before the failure went back


def test_wrong_frames(echo: Any, files: Any) -> None:
    _, _, driver = echo
    with pytest.raises(FrameError, match="needs uint8"):
        driver.start(picture(files[0], 0)[1:], "depth")
    with pytest.raises(TaskError, match="no task 'sky'"):
        driver.start(picture(files[0], 0), "sky")
    assert driver.frame(picture(files[0], 0), "depth").max() == 1


def test_the_engine_on_the_virtual_board(
    kernel: CSimKernel, files: Any, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Camera frames through the public API equal the integer goldens, for one task, several, and after switches."""
    monkeypatch.setattr(simulation, "CSimKernel", lambda: kernel)
    program, golden = files
    with edgemtl.load(integer_bundle, "fpga-sim") as engine:
        assert "in C simulation: exact" in engine.why
        for tasks in (("depth",), ("semseg", "edge"), TASKS, ("normals",)):
            engine.activate(*tasks)
            for i, pixels in enumerate(golden.pixels):
                out = engine(pixels)
                assert set(out) == set(out.timing.counts) == set(tasks)
                for task in tasks:
                    unit = np.float32(program.units[program.task(task)])
                    want = golden.maps[task][i].transpose(2, 0, 1) * unit
                    np.testing.assert_array_equal(out[task].raw, want)
        # 60 bytes of registers that no frame changes; then two addresses, a size, the task and the start for each.
        assert [s.written for s in engine.switches] == [60 + 28, 2 * 28, 4 * 28, 28]
    with pytest.raises(edgemtl.errors.EdgeMTLError, match="closed"):
        engine(golden.pixels[0])


def test_two_engines_share_nothing(
    kernel: CSimKernel, files: Any, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The simulated kernel keeps its memories between frames; another engine's frame in between must not show."""
    monkeypatch.setattr(simulation, "CSimKernel", lambda: kernel)
    _, golden = files
    with (
        edgemtl.load(integer_bundle, "fpga-sim", tasks="depth") as a,
        edgemtl.load(integer_bundle, "fpga-sim", tasks="semseg") as b,
    ):
        want, other = a(golden.pixels[0])["depth"].raw.copy(), b(golden.pixels[1])["semseg"].raw.copy()
        seen: list[Any] = []
        thread = threading.Thread(target=lambda: seen.extend(b(golden.pixels[1])["semseg"].raw for _ in range(5)))
        thread.start()
        for _ in range(5):
            np.testing.assert_array_equal(a(golden.pixels[0])["depth"].raw, want)
        thread.join()
        assert len(seen) == 5
        for raw in seen:
            np.testing.assert_array_equal(raw, other)


def test_backend_says_what_is_missing(plain: Path, integer_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if simulation.obstacle() is None:
        with pytest.raises(BackendError, match="holds nothing for the FPGA board zcu104; make it with edgemtl compile"):
            edgemtl.load(plain, "fpga-sim")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BackendError, match="C simulation needs a C\\+\\+ compiler: apt-get install g\\+\\+"):
        edgemtl.load(integer_bundle, "fpga-sim")
    monkeypatch.setenv("EDGEMTL_FPGA_SIM", "rtl")
    with pytest.raises(BackendError, match="EDGEMTL_FPGA_SIM is csim or twin, not 'rtl'"):
        edgemtl.load(integer_bundle, "fpga-sim")
    monkeypatch.setenv("EDGEMTL_FPGA_SIM", "twin")
    monkeypatch.setattr("shutil.which", lambda name: None if name == "verilator" else name)
    with pytest.raises(BackendError, match="twin needs verilator: apt-get install verilator, or unset EDGEMTL_FPGA_"):
        edgemtl.load(integer_bundle, "fpga-sim")
    monkeypatch.setattr(simulation, "sources", lambda: None)
    with pytest.raises(BackendError, match="run it from a checkout"):
        edgemtl.load(integer_bundle, "fpga-sim")


def test_another_kernel_is_refused(kernel: CSimKernel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BoardError, match="cannot load the simulated kernel: .*no.so"):
        CSimKernel(tmp_path / "no.so")
    monkeypatch.setattr(simulation, "REGISTER_VERSION", 9)
    with pytest.raises(BoardError, match=r"csim.* kernel with register map version \d, this edgemtl's is 9: build it"):
        CSimKernel(Path(kernel._lib._name))


def test_verify_compares_integers(cli: Callable[..., Any], kernel: CSimKernel, integer_bundle: Path) -> None:
    found = json.loads(cli("verify", integer_bundle, "--backend", "fpga-sim", "--json").out)
    assert found["good"]
    assert found["backends"]["fpga-sim"] == dict.fromkeys(TASKS, 0.0)
