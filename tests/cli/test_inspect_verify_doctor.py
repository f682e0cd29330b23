"""The three commands that look: at a bundle, at its soundness, at the machine."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgemtl.bundle import models
from edgemtl.bundle.manifest import Manifest
from edgemtl.bundle.reader import Bundle
from edgemtl.cli import _text, doctor, verify
from edgemtl.runtime import backends


def damage(path: Path, member: str) -> None:
    with Bundle.open(path) as bundle:
        entry = bundle.entries[member]
    data = bytearray(path.read_bytes())
    data[entry.offset + entry.size - 1] ^= 1
    path.write_bytes(data)


class TestInspect:
    def test_tables(self, cli: Any, plain: Path) -> None:
        said = cli("inspect", plain)
        assert said.code == 0
        for words in (
            "plain: ",
            "random weights",
            "32x64",
            "6 experts in 2 blocks, top 2",
            "3 of 6",
            "6 of 6 (all open)",
        ):
            assert words in said.out
        assert "no programs: only the torch backend" in said.out
        assert "goldens: 2 input(s), outputs of semseg, depth, normals, edge, tolerance 0.001" in said.out

    def test_json(self, cli: Any, bundle: Path, micro: Any) -> None:
        facts = json.loads(cli("inspect", bundle, "--json").out)
        depth = facts["tasks"]["depth"]
        assert depth["experts"] == [[2, 3, 4], [0, 1, 5]]
        assert depth["bytes_to_run"] == sum(depth["bytes"].values()) < facts["weights_bytes"]
        assert facts["bytes"] == bundle.stat().st_size
        assert sum(facts["parts_bytes"].values()) == facts["weights_bytes"]
        assert Manifest.model_validate_json(json.dumps(facts["manifest"])).model == micro.config
        for program in facts["programs"]:
            assert program["cannot_run_here"] is None

    def test_terminal_codes_are_not_passed_on(self, cli: Any, plain: Path, rezip: Any) -> None:
        with zipfile.ZipFile(plain) as z:
            inside = {n: z.read(n) for n in z.namelist()}
        manifest = json.loads(inside["manifest.json"])
        manifest["origin"] = "\x1b[2J\x1b]0;owned\x07[red]x[/red]"
        path = rezip({**inside, "manifest.json": json.dumps(manifest).encode()})
        said = cli("inspect", path)
        assert said.code == 0
        assert "\x1b" not in said.out
        assert "[red]x[/red]" in said.out

    @pytest.mark.parametrize("command", ["inspect", "verify"])
    def test_no_bundle(self, cli: Any, tmp_path: Path, command: str) -> None:
        (tmp_path / "x.edgemtl").write_bytes(b"\xff\xd8\xff")
        said = cli(command, tmp_path / "x.edgemtl")
        assert said.code == 2
        assert said.err == f"error: {tmp_path}/x.edgemtl: is not an edgemtl bundle: it begins like a JPEG image\n"


class TestVerify:
    def test_every_usable_backend(self, cli: Any, bundle: Path) -> None:
        said = cli("verify", bundle, "--json", "--threads", 1)
        report = json.loads(said.out)
        assert said.code == 0
        assert report["good"]
        assert report["damaged"] == []
        with Bundle.open(bundle) as opened:
            held = {p.backend for p in opened.manifest.programs} | {"torch"}
        usable = {n for n in held if backends.find(n).unusable() is None}
        assert set(report["backends"]) == usable
        assert set(report["skipped"]) == set(backends.names()) - usable
        for found in report["backends"].values():
            assert set(found) == {"semseg", "depth", "normals", "edge"}
            assert max(found.values()) < report["tolerance"]

    def test_words(self, cli: Any, plain: Path) -> None:
        said = cli("verify", plain, "--backend", "torch", "--threads", 1)
        assert said.code == 0
        assert "12 members match their SHA-256" in said.out
        assert said.out.count(" ok") == 4

    def test_damage_is_named_and_nothing_is_run(self, cli: Any, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        damage(plain, "weights/trunk.safetensors")
        monkeypatch.setattr(verify, "errors", lambda *_: pytest.fail("a damaged bundle was run"))
        said = cli("verify", plain)
        assert said.code == 2
        assert "damaged: weights/trunk.safetensors; nothing was run" in said.out

    def test_wrong_results(self, cli: Any, micro: Any, tmp_path: Path) -> None:
        """Sound bytes, but another model's answers."""
        from edgemtl.bundle.writer import write_bundle

        path = tmp_path / "wrong.edgemtl"
        outputs = {t: {n: -v for n, v in o.items()} if t == "depth" else o for t, o in micro.outputs.items()}
        fields = {"name": "wrong", "model": micro.config}
        write_bundle(path, manifest_fields=fields, weights=micro.weights, golden=(micro.inputs, outputs))
        said = cli("verify", path, "--backend", "torch", "--threads", 1)
        assert said.code == 2
        assert said.out.count("WRONG") == 1
        assert said.out.count(" ok") == 3

    def test_results_that_are_no_numbers(self, cli: Any, micro: Any, tmp_path: Path) -> None:
        from edgemtl.bundle.writer import write_bundle

        path = tmp_path / "nan.edgemtl"
        weights = micro.weights
        weights["task.depth"]["head.out"][:] = float("nan")
        fields = {"name": "nan", "model": micro.config}
        write_bundle(path, manifest_fields=fields, weights=weights, golden=(micro.inputs, micro.outputs))
        found = verify.errors(path, "torch", 1)
        assert found["depth"] == float("inf")
        assert found["edge"] < 1e-3
        said = cli("verify", path, "--backend", "torch", "--json")
        assert said.code == 2
        report = json.loads(said.out)
        assert report["backends"]["torch"]["depth"] is None
        assert report["not_finite"] == ["task.depth:head.out"]
        assert "not finite: task.depth:head.out" in cli("verify", path, "--backend", "torch").out

    def test_goldens_that_nobody_could_run(self, cli: Any, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in backends.names():
            monkeypatch.setattr(backends.find(name), "unusable", classmethod(lambda cls: "not here"))
        said = cli("verify", plain)
        assert said.code == 2
        assert "no backend could run the goldens" in said.out
        assert not json.loads(cli("verify", plain, "--json").out)["good"]

    def test_without_goldens(self, cli: Any, micro: Any, tmp_path: Path) -> None:
        from edgemtl.bundle.writer import write_bundle

        path = tmp_path / "bare.edgemtl"
        write_bundle(path, manifest_fields={"name": "bare", "model": micro.config}, weights=micro.weights)
        said = cli("verify", path)
        assert said.code == 0
        assert "no goldens to run" in said.out

    def test_a_backend_that_was_asked_for_but_cannot(self, cli: Any, plain: Path) -> None:
        said = cli("verify", plain, "--backend", "onnxruntime")
        assert said.code == 2
        assert "no program for backend 'onnxruntime'" in said.err or "not installed" in said.err


class TestDoctor:
    def test_words_and_json(self, cli: Any) -> None:
        said = cli("doctor")
        assert said.code == 0
        for words in (
            "Python ",
            "packages: edgemtl",
            "sparse experts",
            "sparse-kept",
            "cannot",
            "compilers",
            "resident",
        ):
            assert words in said.out
        report = json.loads(cli("doctor", "--json").out)
        assert set(report["backends"]) == set(backends.names())
        for name, found in report["backends"].items():
            backend = backends.find(name)
            assert found["usable"] == (backend.unusable() is None)
            assert found["capabilities"] == {f: c._asdict() for f, c in backend.CAPABILITIES.items()}

    def test_nothing_usable(self, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in backends.names():
            monkeypatch.setattr(backends.find(name), "unusable", classmethod(lambda cls: "not here: pip install x"))
        said = cli("doctor")
        assert said.code == 2
        assert said.out.count("not here: pip install x") == len(backends.names())
        assert said.out.splitlines()[-1].startswith("nothing runs here yet: ")
        assert said.out.rstrip().endswith('Next: pip install "edgemtl[cpu]"')

    def test_the_last_line_without_a_model(self, cli: Any) -> None:
        last = cli("doctor").out.splitlines()[-1]
        assert last.startswith("bundles run here, on ")
        assert last.endswith("; no model is installed. Next: make demo")

    @pytest.mark.parametrize(
        ("name", "cameras", "command"),
        [
            (models.DEFAULT, [], "edgemtl demo"),
            (models.DEFAULT, ["/dev/video2"], "edgemtl run 2 --task semseg"),
            ("mine", [], "edgemtl demo mine"),
        ],
    )
    def test_the_last_line_with_a_model(
        self, installed: Path, bundle: Path, name: str, cameras: list[str], command: str
    ) -> None:
        (installed / f"{models.DEFAULT}.edgemtl").unlink()
        shutil.copy(bundle, installed / f"{name}.edgemtl")
        with Bundle.open(bundle) as opened:
            backend, choice, _ = backends.choose(None, opened)
        program = f" with program {choice.program.target}" if choice.program else ""
        assert doctor.outlook([backend.name], cameras) == (
            f"model {name} runs here, on {backend.name}{program}",
            command,
        )

    def test_the_last_line_with_a_damaged_model(self, cli: Any, installed: Path) -> None:
        (installed / f"{models.DEFAULT}.edgemtl").write_bytes(b"no bundle")
        last = cli("doctor").out.splitlines()[-1]
        assert "; the installed model does not: " in last
        assert last.endswith("Next: pip install edgemtl-models --force-reinstall")


def test_clean() -> None:
    assert _text.clean("a\x1b[2Jb\nc\x00") == "a\ufffd[2Jb\ufffdc\ufffd"
