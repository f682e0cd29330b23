"""The accelerator's part of a bundle: what is packed is read, the same bytes every time, and damage is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemtl.bundle.reader import Bundle
from edgemtl.bundle.writer import write_bundle
from edgemtl.errors import BundleError, TaskError
from edgemtl.fpga import program as fpga_program
from edgemtl.fpga import registers
from edgemtl.fpga.contract import Header
from edgemtl_compiler.fpga.image_bundle import FpgaPart, pack

FOLDER = "programs/fpga/zcu104"
PROGRAM = f"{FOLDER}/program.bin"


def write(path: Path, micro: Any, part: FpgaPart, files: dict[str, bytes], **changes: object) -> Path:
    """A bundle whose manifest and hashes fit `files`, as a hostile author would write it."""
    assert part.entry.accelerator is not None
    accelerator = part.entry.accelerator.model_copy(update=changes)
    programs = [part.entry.model_copy(update={"accelerator": accelerator})]
    fields = {"name": "m", "model": micro.config, "programs": programs}
    write_bundle(path, manifest_fields=fields, weights=micro.weights, files={**part.files, **files})
    return path


def test_what_is_packed_is_loaded(part: FpgaPart, integer_bundle: Path) -> None:
    with Bundle.open(integer_bundle, check=True) as bundle:
        loaded, golden = fpga_program.load(bundle), fpga_program.golden(bundle)
    np.testing.assert_array_equal(loaded.words, part.program.words)
    np.testing.assert_array_equal(loaded.banks, part.program.banks)
    for name in ("tasks", "image_size", "map_size", "channels", "units", "task_bytes"):
        assert getattr(loaded, name) == getattr(part.program, name)
    assert golden.pixels.shape == (2, *loaded.image_size, 3)
    assert all(len(np.unique(m)) > 4 for m in golden.maps.values())
    with pytest.raises(TaskError, match="there is no task 'shape'; this program has"):
        loaded.task("shape")


def test_the_same_network_gives_the_same_bytes(part: FpgaPart) -> None:
    frames = np.frombuffer(part.files[f"{FOLDER}/golden_frames.bin"], np.uint8).reshape(2, *part.program.image_size, 3)
    assert part.entry.accelerator is not None
    again = pack(part.network, frames.transpose(0, 3, 1, 2), calibration=part.entry.accelerator.calibration)
    assert again.files == part.files
    assert again.entry == part.entry


def _field(record: int, field: int, value: int) -> Callable[[np.ndarray[Any, Any]], None]:
    def damage(words: np.ndarray[Any, Any]) -> None:
        words[record, field] = value

    return damage


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        ("no descriptor program", _field(0, 0, 7)),
        ("has version 9, this edgemtl reads", _field(0, 1, 9)),
        ("counts 4 tasks and 0 descriptors", _field(0, 2, 0)),
        ("counts 3 tasks", _field(0, 3, 3)),
        ("another image size", _field(0, 5, 16)),
        ("another image size or weight image", _field(0, 14, 1)),
        ("entry of task 'semseg' reaches beyond", _field(1, 0, 2**32 - 1)),
        ("entry of task 'depth' reaches beyond", _field(2, 2, 3)),
        ("descriptor 0 is unknown", _field(5, 0, 99)),
        ("descriptor 1 is unknown", _field(6, 1, 2)),
        ("descriptor 2 is unknown or points outside", _field(7, 2, 2**31)),
    ],
)
def test_hostile_programs(
    micro: Any, part: FpgaPart, tmp_path: Path, message: str, damage: Callable[[np.ndarray[Any, Any]], None]
) -> None:
    words = part.program.words.copy()
    damage(words)
    words[0, Header.CHECKSUM] = fpga_program.checksum(words)
    path = write(tmp_path / "bad.edgemtl", micro, part, {PROGRAM: words.tobytes()})
    with Bundle.open(path) as bundle, pytest.raises(BundleError, match=rf"^\S+bad.edgemtl: .*{message}"):
        fpga_program.load(bundle)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), value=st.integers(0, 2**32 - 1))
def test_any_changed_word_is_seen(part: FpgaPart, at: int, value: int) -> None:
    """The checksum and the checks before it: no single changed field passes."""
    words = part.program.words.copy()
    flat = words.reshape(-1)
    if flat[at % flat.size] == value:
        return
    flat[at % flat.size] = value
    with pytest.raises(BundleError):
        fpga_program.check(fpga_program.Program(**{**vars(part.program), "words": words}))


def test_members_of_a_wrong_size_never_open(micro: Any, part: FpgaPart, tmp_path: Path) -> None:
    for name in part.files:
        if name.endswith(".json"):
            continue
        with pytest.raises(BundleError, match=r"has \d+ bytes, the model on zcu104 needs|impossible size"):
            write(tmp_path / "bad.edgemtl", micro, part, {name: part.files[name][:-1]})
    with pytest.raises(BundleError, match="the tasks for zcu104 are not the model's"):
        write(tmp_path / "bad.edgemtl", micro, part, {}, tasks=part.entry.accelerator.tasks[:-1])
    assert not list(tmp_path.iterdir())


def test_versions_refuse_each_other(micro: Any, part: FpgaPart, integer_bundle: Path, tmp_path: Path) -> None:
    cases = [({"format_version": 1}, {}, "has format version 1, this edgemtl reads 2")]
    other = {f"{FOLDER}/registers.json": registers.as_json().replace(b'"version": 2', b'"version": 1')}
    cases.append(({"register_version": 1}, other, r"register map \(version 1\) is not this edgemtl's \(version 2\)"))
    for number, (changes, files, message) in enumerate(cases):
        path = write(tmp_path / f"{number}.edgemtl", micro, part, files, **changes)
        with Bundle.open(path) as bundle, pytest.raises(BundleError, match=message):
            fpga_program.load(bundle)
    with Bundle.open(integer_bundle) as bundle, pytest.raises(BundleError, match="nothing for the FPGA board kv260"):
        fpga_program.load(bundle, "kv260")


def test_a_bundle_without_it_says_how_to_make_one(plain: Path) -> None:
    with Bundle.open(plain) as bundle, pytest.raises(BundleError, match="edgemtl compile CHECKPOINT --target zcu104"):
        fpga_program.load(bundle)


def test_inspect_shows_it(cli: Any, part: FpgaPart, integer_bundle: Path) -> None:
    said = cli("inspect", integer_bundle)
    assert said.code == 0, said.err
    assert "zcu104: INT8" in said.out
    assert "calibrated on 35 images (blocks); 2 golden frame(s)" in said.out
    (facts,) = json.loads(cli("inspect", integer_bundle, "--json").out)["programs"]
    assert (facts["backend"], facts["functions"]) == ("fpga", sorted(part.program.tasks))
    assert facts["bytes"] == part.size
    assert facts["accelerator"]["weight_image_bytes"] == part.program.banks.nbytes
