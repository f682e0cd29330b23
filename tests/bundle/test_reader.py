"""Whatever a file is, opening it ends in an open bundle or in one clear sentence."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemtl.bundle import reader
from edgemtl.bundle.container import _guess
from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BundleError


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as z:
        return {n: z.read(n) for n in z.namelist()}


def refuse(path: Path, words: str) -> str:
    """Opening fails with one sentence that begins with the path and has no control characters."""
    with pytest.raises(BundleError, match=words) as caught:
        Bundle.open(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert text.isprintable()
    assert len(text) < 700
    return text


def test_what_an_open_bundle_offers(plain: Path, micro: Any) -> None:
    with Bundle.open(str(plain)) as bundle:
        assert bundle.manifest.name == "plain"
        assert bundle.damaged() == []
        assert set(bundle.parts) == set(micro.weights)
        with pytest.raises(BundleError, match="more than the 0 MiB"):
            bundle.read("golden/inputs.safetensors", 1)
    with pytest.raises(BundleError, match="closed"):
        _ = bundle.fd
    bundle.close()


def test_replacing_the_file_does_no_harm(plain: Path, micro: Any) -> None:
    with Bundle.open(plain) as bundle:
        plain.unlink()
        plain.write_bytes(b"something else")
        np.testing.assert_array_equal(bundle.tensor("trunk", "cls_token"), micro.weights["trunk"]["cls_token"])


def test_cutting_the_file_short_is_noticed(plain: Path) -> None:
    with Bundle.open(plain) as bundle:
        os.truncate(plain, 100)
        with pytest.raises(BundleError, match="became shorter"):
            bundle.tensor("trunk", "cls_token")


def test_descriptors_are_closed_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"junk")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        refuse(tmp_path / "x", "not an edgemtl bundle")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forgotten_bundle_is_closed(plain: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert Bundle.open(plain).manifest.name == "plain"
    assert len(os.listdir("/proc/self/fd")) == before


class TestPlacesThatAreNoFile:
    def test_missing(self, tmp_path: Path) -> None:
        refuse(tmp_path / "no.edgemtl", "there is no such file")

    def test_folder(self, tmp_path: Path) -> None:
        refuse(tmp_path, "is a folder")

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "e.edgemtl").touch()
        refuse(tmp_path / "e.edgemtl", "is empty")

    def test_pipe_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "p.edgemtl")
        refuse(tmp_path / "p.edgemtl", "is no regular file")

    def test_device(self) -> None:
        refuse(Path("/dev/zero"), "is no regular file")

    def test_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as s:
            s.bind("s")
            refuse(Path("s"), "cannot be opened")

    def test_no_permission(self, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refused(*_: Any) -> int:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(os, "open", refused)  # the tests may run as root, who may read all
        refuse(plain, "cannot be opened: Permission denied")

    @pytest.mark.parametrize("path", [None, 3, b"a.edgemtl", ["a.edgemtl"]])
    def test_what_is_no_path(self, path: Any) -> None:
        with pytest.raises(BundleError, match="a bundle is named by its path, a str or a Path, not by "):
            Bundle.open(path)

    def test_null_in_the_name(self) -> None:
        with pytest.raises(BundleError, match="cannot be opened"):
            Bundle.open("a\0b")

    def test_read_error(self, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(*_: Any) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "pread", broken)
        refuse(plain, "cannot be read: Input/output error")


class TestOtherFiles:
    @pytest.mark.parametrize("suffix", [".edgemtl", ".jpg"])
    def test_an_image(self, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"photo{suffix}"
        path.write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(3000))
        refuse(path, "begins like a JPEG image")

    def test_a_torch_checkpoint(self, tmp_path: Path) -> None:
        import torch

        torch.save({"a": torch.zeros(3)}, tmp_path / "model.edgemtl")
        refuse(tmp_path / "model.edgemtl", "no edgemtl bundle; it looks like a PyTorch checkpoint")

    def test_a_packed_anew_bundle(self, plain: Path, tmp_path: Path) -> None:
        again = tmp_path / "again.edgemtl"
        with zipfile.ZipFile(again, "w") as z:
            for name, data in members(plain).items():
                z.writestr(name, data)
        refuse(again, "another zip tool has packed it anew")

    def test_guesses(self) -> None:
        assert "ELF" not in _guess(b"\x7fELF")
        assert "shared library" in _guess(b"\x7fELF")
        assert _guess(b"hello") == ""


Change = Callable[[dict[str, Any]], Any]


def set_(**fields: Any) -> Change:
    return lambda m: m.update(fields)


def model(**fields: Any) -> Change:
    return lambda m: m["model"].update(fields)


def program(**fields: Any) -> Change:
    whole = {"backend": "b", "target": "t", "functions": {}, "members": {}, **fields}
    return lambda m: m.update(programs=[whole])


IO = {"inputs": [[1]], "outputs": [[1]]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_(schema_version=3), r"newer edgemtl .*reads 2.*pip install --upgrade"),
        (set_(schema_version=1), r"older edgemtl .*version is 1.*reads 2.*make it again .*edgemtl compile"),
        (set_(schema_version=0), "no schema version"),
        (set_(schema_version="1"), "no schema version"),
        (set_(schema_version=True), "no schema version"),
        (lambda m: m.pop("schema_version"), "no schema version"),
        (set_(format="zip"), "not that of an edgemtl bundle"),
        (set_(extra=1), "extra: Extra inputs"),
        (set_(name="a\x1b[2Jb"), "name: String should match"),
        (set_(name=None), "name: "),
        (set_(weight_layout="panel32"), "weight_layout"),
        (set_(weights={}), "weight parts are"),
        (set_(members=[]), "is used but is not in the list"),
        (lambda m: m["weights"].update(trunk="golden/inputs.safetensors"), "golden/inputs.*tensor"),
        (lambda m: m.update({"k\x1b]0;x\x07" + "y" * 5000: 1}), "Extra inputs"),
        (model(dim=64), "has shape .* the model needs"),
        (model(dim=0), "model.dim"),
        (model(dim=1e99), "model.dim"),
        (model(experts=4096), "missing|the model needs"),
        (model(experts=5), "the path of|below 5|unknown|the model needs"),
        (model(depth=64), "names 2 MoE blocks"),
        (model(image_size=[1 << 40, 1 << 40]), "less than or equal to 32768"),
        (model(image_size=[8192, 8192]), "the model needs"),
        (model(gate="conditioned"), "gate conditioned has no graph"),
        (model(router="dselect_k", experts=4, paths={}), "router dselect_k is for training"),
        (model(image_size=[16, 10**400]), "whole number|model|not JSON"),
        (model(tasks=[]), "model.tasks"),
        (model(paths={"depth": [[0, 1], [9, 10]]}), "below 6"),
        (model(slots=[[0, 1, 2], [0, 1, 2]], paths={}), "unknown|the model needs"),
        (program(functions={"depth": IO}), "same names"),
        (program(functions={"sky": IO}, members={"sky": "golden/inputs.safetensors"}), "no task of the model"),
        (program(functions={"depth": IO}, members={"depth": "no.so"}), "not in the list"),
        (
            program(
                functions={"depth": {**IO, "params": ["trunk:none"]}}, members={"depth": "golden/inputs.safetensors"}
            ),
            "uses trunk:none, which is missing",
        ),
        (
            program(
                functions={"depth": {**IO, "params": ["task.sky:x"]}}, members={"depth": "golden/inputs.safetensors"}
            ),
            "no known part",
        ),
        (program(functions={"depth": {**IO, "params": ["../x:y"]}}), "params"),
        (program(functions={"depth": {**IO, "outputs": []}}), "outputs"),
        (set_(preprocess={"std": [0.2, 0, 0.2]}), "preprocess.std.1: .* greater than or equal to 0.01"),
        (set_(preprocess={"mean": [0.2, 7, 0.2]}), "preprocess.mean.1: .* less than or equal to 1"),
        (set_(golden={"inputs": "none", "outputs": {}, "count": 1, "tolerance": 0.1}), "not in the list"),
    ],
)
def test_a_wrong_manifest(plain: Path, rezip: Any, change: Change, words: str) -> None:
    inside = members(plain)
    manifest = json.loads(inside["manifest.json"])
    change(manifest)
    refuse(rezip({**inside, "manifest.json": json.dumps(manifest).encode()}), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "not JSON"),
        (b"null", "not that of an edgemtl bundle"),
        (b"[]", "not that of an edgemtl bundle"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "not JSON"),
        (b'{"format": "edgemtl-bundle", "schema_version": 2', "not JSON"),
        (b'{"format": "edgemtl-bundle", "schema_version": 2}', "name: Field required .and 4 more"),
        (b'{"format": "edgemtl-bundle", "schema_version": ' + b"9" * 5000 + b"}", "not JSON|newer"),
        (b"\xff", "not JSON"),
        (b" " * ((4 << 20) + 1), "more than the 4 MiB"),
    ],
)
def test_a_manifest_that_is_none(plain: Path, rezip: Any, text: bytes, words: str) -> None:
    refuse(rezip({**members(plain), "manifest.json": text}), words)


def test_the_manifest_comes_first(plain: Path, rezip: Any) -> None:
    inside = members(plain)
    manifest = inside.pop("manifest.json")
    refuse(rezip({**inside, "manifest.json": manifest}), "first member is not manifest.json")


def test_members_and_manifest_agree(plain: Path, rezip: Any) -> None:
    from edgemtl.bundle.writer import _zip

    def write(inside: dict[str, bytes]) -> Path:
        path = plain.with_name("x.edgemtl")
        path.write_bytes(b"".join(_zip({n: [d] for n, d in inside.items()})))
        return path

    inside = members(plain)
    refuse(write({**inside, "more.bin": b""}), "'more.bin' is not in the manifest")
    name = "golden/edge.safetensors"
    refuse(write({n: d for n, d in inside.items() if n != name}), f"'{name}' is missing")
    refuse(write({**inside, name: inside[name] + b"\0"}), "bytes, the manifest says")


def retensor(data: bytes, change: Change) -> bytes:
    """A safetensors member with a changed header of the same length."""
    length = struct.unpack_from("<Q", data)[0]
    header = json.loads(data[8 : 8 + length])
    change(header)
    return data[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(length) + data[8 + length :]


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("trunk", lambda h: h.update(other=h.pop("cls_token")), "'cls_token' is missing"),
        ("task.depth", lambda h: h["head.norm"].update(shape=[4, 16]), r"has shape \(4, 16\), the model needs \(64,\)"),
        ("experts.1", lambda h: h.update({"6": h.pop("5")}), "'5' is missing"),
        ("experts.3", lambda h: h["5"].update(dtype="F64"), "type 'F64'"),
        ("experts.3", lambda h: h["1"].update(data_offsets=h["0"]["data_offsets"]), "overlaps"),
    ],
)
def test_wrong_tensors(plain: Path, rezip: Any, part: str, change: Change, words: str) -> None:
    inside = members(plain)
    name = f"weights/{part}.safetensors"
    refuse(rezip({**inside, name: retensor(inside[name], change)}), f"member '{name}': .*{words}")


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_flipped_weight_is_found_by_check_only(plain: Path) -> None:
    with Bundle.open(plain) as bundle:
        place = bundle.parts["experts.3"]["4"]
    flip(plain, place.offset + 100)
    with Bundle.open(plain) as bundle:
        assert bundle.damaged() == ["weights/experts.3.safetensors"]
    with pytest.raises(BundleError, match=r"damaged: weights/experts.3.safetensors differ"):
        Bundle.open(plain, check=True)


def test_a_part_is_hashed_once_before_it_is_used(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bundle.open(plain) as bundle:
        bundle.use("trunk")  # nobody asked
        bundle.verify_when_used()
        hashed: list[str] = []
        differs = bundle._differs
        monkeypatch.setattr(bundle, "_differs", lambda name: hashed.append(name) or differs(name))
        for part in ("trunk", "task.depth", "trunk"):
            bundle.use(part)
        assert hashed == ["weights/trunk.safetensors", "weights/task.depth.safetensors"]


def test_writing_into_the_file_is_noticed(plain: Path) -> None:
    with Bundle.open(plain) as bundle:
        bundle.check_unchanged()
        before = plain.stat()
        with open(plain, "r+b") as f:
            f.write(b"P")
        os.utime(plain, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(BundleError, match=r"has been written to .* load it again; replace a bundle by renaming"):
            bundle.check_unchanged()
    with Bundle.open(plain) as bundle:
        os.truncate(plain, bundle.size + 1)
        os.utime(plain, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
        with pytest.raises(BundleError, match="has been written to"):
            bundle.check_unchanged()


def test_a_flipped_manifest_byte(plain: Path) -> None:
    with Bundle.open(plain) as bundle:
        offset = bundle.entries["manifest.json"].offset
    flip(plain, offset + 30)
    refuse(plain, "manifest is damaged: it differs from its CRC-32")


def test_a_flipped_golden_is_found_when_read(plain: Path) -> None:
    with Bundle.open(plain) as bundle:
        offset = bundle.entries["golden/depth.safetensors"].offset
    flip(plain, offset + 5000)
    with Bundle.open(plain) as bundle, pytest.raises(BundleError, match=r"golden/depth.*damaged.*SHA-256"):
        bundle.golden()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["golden"].update(count=3), "does not hold 3 tensors"),
        (lambda m: m["golden"]["outputs"].update(sky="golden/edge.safetensors"), "no task of its model"),
        (lambda m: m["golden"]["outputs"].update(depth="golden/normals.safetensors"), r"of shape \(1, 8, 16\)"),
        (lambda m: m["golden"].update(inputs="manifest2.json"), "impossible length"),
        (lambda m: m.update(golden=None), "no golden"),
    ],
)
def test_wrong_goldens(plain: Path, rezip: Any, change: Change, words: str) -> None:
    inside = members(plain) | {"manifest2.json": b"{}"}
    manifest = json.loads(inside["manifest.json"])
    change(manifest)
    path = rezip({**inside, "manifest.json": json.dumps(manifest).encode()})
    with Bundle.open(path) as bundle, pytest.raises(BundleError, match=words):
        bundle.golden()


def test_opening_reads_no_weights(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only headers and the manifest: else everything would become resident."""
    read, pread = 0, os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        nonlocal read
        read += size
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", counting)
    with Bundle.open(plain) as bundle:
        places = [p for part in bundle.parts.values() for p in part.values()]
        assert read < bundle.size - sum(p.size for p in places)


def test_permissions_of_a_written_file(plain: Path) -> None:
    assert not stat.S_IMODE(plain.stat().st_mode) & 0o111


def test_limits_are_stated() -> None:
    assert reader.MAX_MANIFEST == 4 << 20
