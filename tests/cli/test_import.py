"""Starting is cheap: nothing heavy is imported before it is used."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from edgemtl.cli import _text

HEAVY = ("torch", "tvm", "tvm_ffi", "onnxruntime", "onnx", "pynq", "cv2", "embreex")


def modules_after(code: str) -> set[str]:
    """Names of the top-level modules that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys\nprint('MODULES', *sorted({{m.split('.')[0] for m in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.split("MODULES", 1)[1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import edgemtl",
        "import edgemtl.cli.main as m; m._join()",
        "import sys; sys.argv = ['edgemtl', '--help']\nfrom edgemtl.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
)
def test_nothing_heavy(code: str) -> None:
    found = modules_after(code)
    assert not found & set(HEAVY)
    assert not found & {"numpy", "pydantic"}, "not even these"


def test_the_root_names_what_it_has() -> None:
    import edgemtl

    assert issubclass(edgemtl.errors.BundleError, edgemtl.EdgeMTLError)
    assert edgemtl.load.__module__ == edgemtl.Engine.__module__ == "edgemtl.runtime.engine"
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        _ = edgemtl.lode


def test_opening_a_bundle_needs_no_backend(plain: Path) -> None:
    code = f"from edgemtl.bundle.reader import Bundle; Bundle.open({str(plain)!r}).close()"
    assert not modules_after(code) & set(HEAVY)


def test_running_on_tvm_imports_neither_tvm_nor_torch(bundle: Path) -> None:
    from edgemtl.errors import BackendError

    code = (
        "import edgemtl, numpy as np\n"
        f"with edgemtl.load({str(bundle)!r}, 'tvm-cpu', tasks='depth') as e: e(np.zeros((9, 9, 3), np.uint8))"
    )
    from edgemtl.bundle.reader import Bundle
    from edgemtl.runtime import backends

    try:
        with Bundle.open(bundle) as opened:
            backends.usable("tvm-cpu", opened)
    except BackendError as e:
        pytest.skip(str(e))
    assert not modules_after(code) & {"torch", "tvm", "onnxruntime"}


def test_the_way_to_a_first_map_imports_only_what_it_uses(bundle: Path, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    from edgemtl.bundle.reader import Bundle
    from edgemtl.errors import BackendError
    from edgemtl.runtime import backends

    try:
        with Bundle.open(bundle) as opened:
            backends.usable("tvm-cpu", opened)
    except BackendError as e:
        pytest.skip(str(e))
    cv2.imwrite(str(tmp_path / "frame.png"), np.zeros((24, 40, 3), np.uint8))
    words = [
        "edgemtl",
        "run",
        str(bundle),
        str(tmp_path / "frame.png"),
        "--task",
        "depth",
        "-o",
        str(tmp_path / "o.png"),
    ]
    script = (
        f"import sys; sys.argv = {words!r}\n"
        "from edgemtl.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('MODULES', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert (tmp_path / "o.png").exists()
    loaded = set(done.stdout.split("MODULES", 1)[1].split())
    assert "tvm_ffi" in loaded
    assert not {m.split(".")[0] for m in loaded} & {"torch", "tvm", "onnx", "onnxruntime", "rich", "edgemtl_compiler"}
    assert not loaded & {"numpy.ma", "edgemtl.graph.integer", "edgemtl.fpga.counters", "edgemtl.cli.compile"}


@pytest.mark.parametrize("terminal", [True, False])
def test_a_status_changes_in_place_and_goes(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    said.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stderr", said)
    monkeypatch.setenv("COLUMNS", "9")
    monkeypatch.setenv("TERM", "xterm")
    with _text.Status() as status:
        status.update("frame 1\x1b[31m of 2")
    assert said.getvalue() == ("\rframe 1\ufffd\x1b[K\r\x1b[K" if terminal else "")


def test_a_message_cannot_steer_the_terminal(tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['edgemtl', 'inspect', 'a\\x1b[31m.edgemtl']\nfrom edgemtl.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "\x1b" not in done.stderr
