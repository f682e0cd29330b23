"""What every kind of task promises, and where kinds may be named."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from edgemtl import tasks
from edgemtl.config import TaskConfig
from edgemtl.errors import ConfigError, DataError
from edgemtl.media import view
from edgemtl.train import tasks as learners

ROOT = Path(__file__).parents[2]
# Files that name kinds because they are about certain tasks or data, and nothing that holds for all kinds.
NAMED = {
    "edgemtl/bench/subjects.py": "the task that is measured, and depth as a number of blocks",
    "edgemtl/cli/_estimate_text.py": "depth of a memory",
    "edgemtl/cli/data.py": "what NYU's seams do to its outlines",
    "edgemtl/cli/macs.py": "depth as a number of blocks",
    "edgemtl/data/cityscapes.py": "a layout",
    "edgemtl/data/homes/catalogue.py": "depth of furniture",
    "edgemtl/data/homes/write.py": "folders that a generator writes",
    "edgemtl/data/nyud.py": "a layout",
    "edgemtl/data/pascal.py": "a layout",
    "edgemtl/data/rooms/write.py": "folders that a generator writes",
    "edgemtl/data/seams.py": "NYU's files",
    "edgemtl/model/m3vit_files.py": "M3ViT's names of tasks",
    "edgemtl/model/presets.py": "the tasks of presets, and depth as a number of blocks",
    "edgemtl/train/refit.py": "the task that a command is for by default",
}


def named(path: Path) -> list[str]:
    """The kinds that a source names: strings in Python, words in JavaScript."""
    text, kinds = path.read_text(encoding="utf-8"), set(tasks.names())
    if path.suffix == ".js":
        return [word for word in re.findall(r"\w+", text) if word in kinds]
    return [n.value for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Constant) and n.value in kinds]


def sources() -> Iterator[tuple[str, Path]]:
    for folder in ("edgemtl", "compiler", "demos"):
        for suffix in ("py", "js"):
            for path in (ROOT / folder).rglob(f"*.{suffix}"):
                yield path.relative_to(ROOT).as_posix(), path


def test_kinds_are_named_in_their_own_files_only() -> None:
    found = {name: hits for name, path in sources() if (hits := named(path))}
    own = ("edgemtl/tasks/", "edgemtl/train/tasks/")
    assert {name: hits for name, hits in found.items() if not name.startswith(own) and name not in NAMED} == {}
    assert set(NAMED) <= set(found), "an entry that is needed no more"


def test_a_name_would_be_found(tmp_path: Path) -> None:
    for name, text in (("a.py", 'if kind == "semseg": pass'), ("a.js", "const SHOWS = { semseg: 1 };")):
        (tmp_path / name).write_text(text)
        assert named(tmp_path / name) == ["semseg"]


def test_every_kind_is_learnt() -> None:
    assert learners.names() == tasks.names()
    own = [learners.find(kind).own for kind in tasks.names()]
    assert len({figure.key for figure in own}) == len(own), "a main figure's key tells the kind"


@pytest.mark.parametrize("name", tasks.names())
def test_a_kind_keeps_its_promises(name: str) -> None:
    kind, size = tasks.find(name), (9, 14)
    channels = kind.channels or 4
    raw = np.random.default_rng(0).normal(size=(channels, 5, 7)).astype(np.float32)
    result = kind.result(raw, size)
    assert (result.shape, result.dtype) == (kind.shape(size), kind.dtype)
    mine = np.empty_like(result)
    assert kind.result(raw, size, mine) is mine
    np.testing.assert_array_equal(mine, result)
    task = TaskConfig(name="t", kind=name, channels=channels)
    assert view.colour(task, result).shape == (*size, 3)
    assert kind.shows
    assert bool(kind.words) + bool(kind.unit) + kind.classes == 1, "one way of saying what its colours mean"
    assert kind.agreement(raw, raw.astype(np.float64)) == 1
    label = np.full((2, *size, *kind.vector), kind.none, kind.stored)
    label[0] = 1
    target = kind.target(label)
    assert (target[1] == tasks.INVALID).all()
    assert (target[0] != tasks.INVALID).all()
    values, known = kind.truth(target[0])
    assert (values.shape, known.shape) == (result.shape, size)
    assert known.all()
    assert not kind.truth(target[1])[1].any()
    for moved in (kind.mirrored(label[0]), kind.turned(label[0], 10, ""), kind.shrunk(label[0], label[0])):
        assert (moved.shape, moved.dtype) == (label[0].shape, label.dtype)
    with pytest.raises(DataError, match=r"x\.npy has the shape"):
        kind.read(Path("x.npy"), np.zeros((2,)))


def test_an_unknown_kind_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no kind of task 'dept' \(did you mean 'depth'\?\); .* has depth, edge"):
        tasks.find("dept")
    for name in ("_binary", "../depth", "", "depth.KIND"):
        with pytest.raises(ValidationError, match="there is no kind of task"):
            TaskConfig(name="t", kind=name, channels=1)


def test_kinds_are_light() -> None:
    """A graph and a configuration need no OpenCV, whatever kinds they name."""
    code = "import sys; from edgemtl.config import TaskConfig\n"
    code += "".join(f"TaskConfig(name='t', kind={k!r}, channels={tasks.find(k).channels or 2});" for k in tasks.names())
    subprocess.run([sys.executable, "-c", code + "sys.exit('cv2' in sys.modules)"], check=True)
