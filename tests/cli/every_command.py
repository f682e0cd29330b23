"""Every command of edgemtl once: python every_command.py FOLDER CHECKPOINT [HIDDEN ...] prints how each ended, as JSON.

HIDDEN are modules and packages that this process must not find, as if they were not installed. FOLDER gets the files.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import traceback
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any


def hide(names: frozenset[str]) -> None:
    """Make the import system and importlib.metadata find nothing of these names."""

    class Finder(PathFinder):
        @classmethod
        def find_spec(
            cls, fullname: str, path: Sequence[str] | None = None, target: Any | None = None
        ) -> ModuleSpec | None:
            return None if fullname.partition(".")[0] in names else PathFinder.find_spec(fullname, path, target)

        @classmethod
        def find_distributions(cls, *args: Any, **more: Any) -> Iterable[Distribution]:  # type: ignore[override]
            return (d for d in PathFinder.find_distributions(*args, **more) if d.metadata["Name"] not in names)

    sys.meta_path[:] = [Finder if f is PathFinder else f for f in sys.meta_path]


def commands(folder: Path, checkpoint: Path, count: int) -> list[list[str]]:
    """With files that they can read, `count` pictures among them; 32 are enough to calibrate."""
    import cv2
    import numpy as np

    pictures = folder / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        cv2.imwrite(str(pictures / f"{i}.png"), np.full((64, 96, 3), 7 * i, np.uint8))
    (folder / "set" / "gt_sets").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (folder / "set" / "gt_sets" / f"{split}.txt").write_text("0\n")
    (folder / "x.pth").write_bytes(b"no checkpoint")
    bundle, one = folder / "b.edgemtl", str(checkpoint)
    compiled = ["compile", one, "--target", "torch", "-o", str(bundle)]
    found = [
        compiled,
        *(["compile", one, "--target", t, "-o", str(folder / "c.edgemtl")] for t in ("fpga", "onnx", "cpu")),
        *([name, str(bundle)] for name in ("inspect", "verify", "macs", "estimate")),
        ["macs", "--preset", "micro"],
        ["estimate", "--preset", "micro"],
        ["estimate", one],
        ["run", str(folder / "c.edgemtl"), str(pictures), "--task", "depth"],
        ["demo", "--out", str(folder / "demo"), "--limit", "1"],
        ["demo", "--web", "--limit", "1"],
        ["calibrate", one, str(pictures), "--images", "32", "-o", str(folder / "r.ranges.safetensors")],
        ["quantise", one, "--calibrate", str(pictures)],
        ["import-m3vit", str(folder / "x.pth"), "-o", str(folder / "m.safetensors")],
        ["import-stem", "-o", str(folder / "s.safetensors")],
        ["train", "rooms_tiny", "--data", str(folder / "none"), "--out", str(folder / "run")],
        ["paths", one, "--data", str(folder / "none")],
        ["eval", one, "--data", str(folder / "none")],
        ["eval", str(bundle), "--data", str(folder / "none")],
        ["data", "rooms", str(folder / "rooms"), "--count", "2", "--size", "32x64", "--workers", "1"],
        ["data", "homes", str(folder / "homes"), "--count", "2", "--size", "32x64", "--workers", "1"],
        ["data", "check", str(folder / "set")],
        ["data", "check"],
        ["deploy", str(bundle), "-o", str(folder / "board")],
        ["doctor"],
    ]
    return found


def tried(words: list[str]) -> tuple[int, str]:
    """Exit code, and standard error, or the traceback that escaped with code 1."""
    from edgemtl.cli import main

    sys.argv = ["edgemtl", *words]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main.main()
        except SystemExit as e:
            return (e.code if isinstance(e.code, int) else int(e.code is not None)), said.getvalue()
        except BaseException:
            return 1, traceback.format_exc()
    return 0, said.getvalue()


def run(folder: Path, checkpoint: Path, count: int) -> dict[str, tuple[int, str]]:
    """{command: how it ended}"""
    from edgemtl.cli import main

    main._join()
    main._join = lambda *_: None  # once is enough
    return {" ".join(words): tried(words) for words in commands(folder, checkpoint, count)}


if __name__ == "__main__":
    hide(frozenset(sys.argv[3:]))
    print("RESULT", json.dumps(run(Path(sys.argv[1]), Path(sys.argv[2]), 2 if sys.argv[3:] else 32)))
