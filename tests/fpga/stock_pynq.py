"""Runs under stock pynq, in the environment that test_second_door.py makes: `stock_pynq.py BUNDLE KERNEL.so FOLDER`.

The virtual board is a process of its own; pynq reaches it over its remote protocol. Prints one JSON object, the name
of each case with "ok" or what was wrong.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

bundle, kernel, folder = map(Path, sys.argv[1:])
os.environ["PYNQ_REMOTE_DEVICES"] = "127.0.0.1"
os.environ["EDGEMTL_BITSTREAM"] = str(folder / "edgemtl.bit")
sys.path[:0] = [str(folder) for folder in Path(__file__).parents[:2]]

import door_cases  # noqa: E402
import remote_board  # noqa: E402
import virtual_files  # noqa: E402

from edgemtl.errors import BoardError  # noqa: E402


def refuses(words: str, call: Callable[[], object]) -> None:
    """The call raises a BoardError whose text holds each of the words."""
    try:
        call()
    except BoardError as error:
        missing = [w for w in words.split("; ") if w not in str(error)]
        if missing:
            raise AssertionError(f"{missing} is not in {error}") from error
        return
    raise AssertionError(f"nothing was refused where {words!r} should be")


def written() -> int:
    import pynq

    return int(pynq.Device.active_device.read_file(remote_board.WRITTEN))


def a_stuck_kernel(load: door_cases.Load, want: door_cases.Want) -> None:
    """Times out, the overlay is loaded again, and the next frame is right."""
    import pynq

    engine = load("depth")
    engine(want.golden.pixels[0])
    pynq.Device.active_device.write_file(remote_board.FAULT, b"stuck")
    refuses("did not finish task 'depth' within 1 s; started 1, idle 0", lambda: engine(want.golden.pixels[0]))
    door_cases.np.testing.assert_array_equal(engine(want.golden.pixels[1])["depth"].raw, want.raw("depth", 1))


def a_switch_writes_little(load: door_cases.Load, want: door_cases.Want) -> None:
    engine = load("depth")
    counts = []
    for i, task in enumerate(("depth", "depth", "depth", "semseg", "semseg")):
        engine.activate(task)
        before = written()
        engine(want.golden.pixels[i % 2])
        counts.append(written() - before)
    assert 0 < counts[3] - counts[2] <= 64 << 10, counts


def no_memory(load: door_cases.Load, want: door_cases.Want) -> None:
    """64 MiB are all there is: the error says so, what was taken goes back, and another engine works."""
    from edgemtl.fpga import pynq_driver

    board = pynq_driver.board(Path(os.environ["EDGEMTL_BITSTREAM"]), "zcu104")
    refuses("contiguous memory (CMA); 68157440 bytes needed", lambda: board.allocate((65 << 20,), "u1"))
    load("edge")(want.golden.pixels[0])


def a_bad_address(load: door_cases.Load, want: door_cases.Want) -> None:
    engine = load("edge")
    driver = engine._runner.driver
    driver._addresses[id(driver._pixels[0])] += 8
    refuses("not aligned to 16 bytes", lambda: engine(want.golden.pixels[0]))
    driver._addresses[id(driver._pixels[0])] -= 8
    door_cases.np.testing.assert_array_equal(engine(want.golden.pixels[0])["edge"].raw, want.raw("edge", 0))


def a_stale_handoff(load: door_cases.Load, want: door_cases.Want) -> None:
    from edgemtl.fpga import pynq_driver

    engine = load("edge")
    other = virtual_files.write(folder / "stale", fault="stale-hwh")
    refuses("edgemtl.hwh: is stale", lambda: pynq_driver.board(other, "zcu104"))
    engine(want.golden.pixels[0])


OWN = (a_stuck_kernel, a_switch_writes_little, no_memory, a_bad_address, a_stale_handoff)


def main() -> None:
    command = [sys.executable, remote_board.__file__, str(kernel), "--files", str(folder), "--cma", str(64 << 20)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    found = {}
    try:
        assert server.stdout is not None
        assert "virtual ZCU104" in server.stdout.readline()
        for case in (*door_cases.CASES, *OWN):
            begun = time.perf_counter()
            try:
                door_cases.run(case, bundle, "fpga")
                found[case.__name__] = "ok"
            except Exception:
                found[case.__name__] = traceback.format_exc()
            print(f"{case.__name__}: {time.perf_counter() - begun:.2f} s", file=sys.stderr)
        import pynq

        found["device"] = f"{type(pynq.Device.active_device).__name__} of pynq {pynq.__version__}"
    finally:
        server.terminate()
        server.wait()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
