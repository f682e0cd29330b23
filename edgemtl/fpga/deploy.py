"""What a board owner gets: this edgemtl as a wheel, the bundle's part for the board, and a test that proves the two.

`make` writes the folder, `edgemtl deploy` calls it. The wheel is written file by file, so that neither a build tool nor
the network is needed.
"""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import edgemtl
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BoardError
from edgemtl.fpga import bitstream, model_folder, program
from edgemtl.fpga.board import FACTS, OWN, Facts, find
from edgemtl.runtime.pack import write_wheel

PACKAGE = Path(edgemtl.__file__).parent
LEFT_OUT = ("train", "data")  # they need a workstation
SCRIPT = '''"""Proves the accelerator on this board; python board_test.py --help."""

import sys

from edgemtl.fpga.board_test import main

if __name__ == "__main__":
    sys.exit(main(__file__))
'''
SUFFIXES = (".py", ".typed", ".html", ".js", ".css")


@dataclass(frozen=True)
class Deployed:
    """The folder that was written, its files by size, and whether it holds a bitstream."""

    folder: Path
    files: dict[str, int]
    bitstream: bool


def make(
    bundle: Path,
    out: Path,
    *,
    board: str | None = None,
    bit: Path | None = None,
    estimated: dict[str, dict[str, int]] | None = None,
) -> Deployed:
    """Write the folder `out`, new or empty. With `bit`, the three files of a build go in too, checked first;
    `estimated` gives the modelled cycles of a frame by task and unit, for the test's report.

    `board` is by default the one that the bundle is for. Raises BoardError, and BundleError where the bundle holds
    nothing for `board`.
    """
    if board is not None:
        find(board)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BoardError(f"{out} is not empty: give a new folder")
    with Bundle.open(bundle, check=True) as opened:
        found = find(program.described(opened, board)[0].target)
        if bit is not None:
            bitstream.open_bitstream(bit, found.name)
        facts = model_folder.write(opened, out / "model", found.name, estimated)
    wheel = driver_wheel(out)
    (out / "board_test.py").write_text(SCRIPT)
    if bit is not None:
        for suffix in (".bit", ".hwh", ".json"):
            (out / bitstream.NAME).with_suffix(suffix).write_bytes(bit.with_suffix(suffix).read_bytes())
    (out / "README.md").write_text(_readme(wheel.name, facts.name, found, bit is not None))
    files = {p.relative_to(out).as_posix(): p.stat().st_size for p in sorted(out.rglob("*")) if p.is_file()}
    return Deployed(out, files, bit is not None)


def driver_wheel(out: Path) -> Path:
    """This edgemtl without training, data sets and weights, as a wheel for any Python; gives its path."""
    found = importlib.metadata.distribution("edgemtl")
    files = {
        path.relative_to(PACKAGE.parent).as_posix(): path.read_bytes()
        for path in sorted(PACKAGE.rglob("*"))
        if path.suffix in SUFFIXES
        and not any(path.relative_to(PACKAGE).as_posix().startswith(left) for left in LEFT_OUT)
    }
    files |= {f"edgemtl/fpga/boards/{p.parent.name}/{FACTS}": p.read_bytes() for p in sorted(OWN.glob(f"*/{FACTS}"))}
    about = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""  # the second in a checkout's own folder
    files |= {"METADATA": about.encode(), "entry_points.txt": (found.read_text("entry_points.txt") or "").encode()}
    return write_wheel(out, "edgemtl", edgemtl.__version__, ("py3-none-any",), files)


def _readme(wheel: str, name: str, board: Facts, built: bool) -> str:
    files = "`edgemtl.bit`, `edgemtl.hwh` and `edgemtl.json` lie here."
    if not built:
        files = (
            "**No bitstream lies here.** Copy `edgemtl.bit`, `edgemtl.hwh` and `edgemtl.json` of one build into this\n"
            f"folder; `make -C bitstreams {board.name}` in a checkout of edgemtl makes them with Vivado."
        )
    return f"""# {name} on a {board.title}

{files}

On the board (PYNQ 4.0.0 image), in this folder:

```sh
sudo -i
source /etc/profile.d/pynq_venv.sh; source /etc/profile.d/xrt_setup.sh
cd THIS_FOLDER
pip install --no-deps {wheel}
edgemtl doctor --board
python board_test.py
```

`board_test.py` compares every task's golden frames bit for bit, times each task, measures power where the board has
rails, and writes `board_test.json`: please send it back, whatever it says. If `pip` says that a package is missing:
`pip install pydantic safetensors typer rich`.

Without a board, on a machine with a checkout of edgemtl: `python board_test.py --virtual`.

`model/` holds the weight image, the descriptor program, the register map and the golden frames; `model/model.json` says
what they are.
"""
