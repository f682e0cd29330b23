"""Random damage: a bundle opens with the same meaning, or is refused, or `damaged` finds it; nothing else happens."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BundleError

FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def good(_plain: Path) -> bytes:
    return _plain.read_bytes()


@pytest.fixture(scope="module")
def spots(_plain: Path) -> list[tuple[int, int]]:
    """Ranges of the file that are no weights: headers, manifest, directory."""
    with Bundle.open(_plain) as bundle:
        ends, out = 0, []
        for e in bundle.entries.values():
            out.append((ends, e.offset + min(e.size, 4200)))
            ends = e.offset + e.size
        return [*out, (ends, bundle.size)]


@st.composite
def damage(draw: st.DrawFn, size: int, spots: list[tuple[int, int]]) -> list[tuple[str, int, bytes]]:
    """One to three edits, most of them outside the weights."""
    edits = []
    for _ in range(draw(st.integers(1, 3))):
        low, high = draw(st.sampled_from([*spots, (0, size)]))
        at = draw(st.integers(low, high - 1))
        what = draw(st.sampled_from(["flip", "set", "cut", "insert", "delete"]))
        data = draw(
            st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\1\0\0\0"]) | st.binary(min_size=1, max_size=6)
        )
        edits.append((what, at, data))
    return edits


def apply(data: bytes, edits: list[tuple[str, int, bytes]]) -> bytes:
    for what, at, new in edits:
        match what:
            case "flip":
                data = data[:at] + bytes(b ^ (1 << new[0] % 8) for b in data[at : at + 1]) + data[at + 1 :]
            case "set":
                data = data[:at] + new + data[at + len(new) :]
            case "cut":
                data = data[:at]
            case "insert":
                data = data[:at] + new + data[at:]
            case "delete":
                data = data[:at] + data[at + len(new) :]
    return data


def open_or_none(path: Path) -> Bundle | None:
    """None when the file is refused, with a printable sentence."""
    try:
        return Bundle.open(path)
    except BundleError as e:
        if not str(e).isprintable():
            raise AssertionError(f"not printable: {str(e)!r}") from None
        return None


@FUZZ
@given(data=st.data())
def test_damaged_bytes(data: st.DataObject, good: bytes, spots: list[tuple[int, int]], tmp_path: Path) -> None:
    bad = apply(good, data.draw(damage(len(good), spots)))
    path = tmp_path / "fuzzed.edgemtl"
    path.write_bytes(bad)
    bundle = open_or_none(path)
    if bundle is None:
        assert bad != good, "a sound bundle was refused"
        return
    with bundle:
        assert bundle.damaged() or bad == good


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("../x") | st.just(1 << 70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    out = [path] if path else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        out += nodes(inner, (*path, key))
    return out


@FUZZ
@given(data=st.data())
def test_a_manifest_with_other_values(data: st.DataObject, good: bytes, plain: Path, rezip: Any) -> None:
    """Any value of the manifest replaced by anything, in a container that is sound: what opens can be used."""
    with zipfile.ZipFile(plain) as z:
        inside = {n: z.read(n) for n in z.namelist()}
    manifest = json.loads(inside["manifest.json"])
    *path, last = data.draw(st.sampled_from(nodes(manifest)))
    target = manifest
    for key in path:
        target = target[key]
    if data.draw(st.booleans()):
        target[last] = data.draw(JSON)
    elif isinstance(target, dict):
        target[data.draw(st.text(max_size=5))] = target.pop(last)
    else:
        target.append(target[last])
    text = json.dumps(manifest).encode()
    bundle = open_or_none(rezip({**inside, "manifest.json": text}))
    if bundle is None:
        return
    with bundle:
        assert bundle.manifest.model.task_names
        assert bundle.damaged() == []
        for part, places in bundle.parts.items():
            for name in places:
                assert bundle.tensor(part, name).size
