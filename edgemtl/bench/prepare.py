"""Everything slow that comes before timing, once per subject: weights, input, expected output, exports, bundle.

`python -m edgemtl.bench.prepare JSON` does it in a process of its own and prints one JSON line per artifact, so that
what was made before a crash is kept and a failure is a reason, not the end. A folder that holds an artifact of the same
sources, model and packages is reused.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgemtl.bench import quantise
from edgemtl.bench.subjects import Subject
from edgemtl.config import ModelConfig

INPUT, EXPECTED, INFO = "input.npy", "expected.npy", "info.json"
OPSET, INT8_OPSET = 23, 18  # 18 has Gelu and Attention as smaller ops, which the tools for INT8 know
PACKAGES = ("torch", "onnx", "apache-tvm", "numpy", "onnxruntime", "openvino", "nncf")


def request(
    subject: Subject, folder: Path, artifacts: Sequence[str], pictures: Path | None = None, target: str = "cpu"
) -> dict[str, Any]:
    """What the child is told. pictures: what INT8 is calibrated on; None: noise. target: of edgemtl's programs."""
    return {
        "name": subject.name,
        "config": subject.config.model_dump(mode="json"),
        "task": subject.task,
        "bundle": subject.bundle,
        "folder": str(folder),
        "artifacts": list(artifacts),
        "pictures": str(pictures) if pictures else None,
        "target": target,
    }


def fingerprint(subject: Subject, pictures: Path | None = None, target: str = "cpu") -> str:
    """Changes with anything that an artifact is made from: model, weights, sources, packages, the pictures' folder."""
    digest = hashlib.sha256(subject.config.model_dump_json().encode() + subject.task.encode())
    digest.update(f"{pictures and pictures.resolve()} {target}".encode())
    digest.update(json.dumps(versions()).encode())
    for file in (*sources(), *([Path(subject.bundle)] if subject.bundle else [])):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of the packages that engines are made of, as far as they are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def sources() -> list[Path]:
    """The files whose code makes artifacts."""
    specs = map(importlib.util.find_spec, ("edgemtl", "edgemtl_compiler"))
    roots = [Path(spec.origin).parent for spec in specs if spec is not None and spec.origin]
    return [f for root in roots for f in sorted(root.rglob("*")) if f.suffix in (".py", ".h", ".cc")]


def main(text: str) -> None:
    """The child: makes what `text` asks for and says so, line by line."""
    warnings.simplefilter("ignore")  # the exporters' own; nothing a reader of the report could act on
    want = json.loads(text)
    folder = Path(want["folder"])
    model = _reference(want, folder)
    for name in want["artifacts"]:
        began = time.monotonic()
        try:
            with contextlib.redirect_stdout(sys.stderr):  # NNCF prints; this process says only JSON there
                path = _maker(name)(name, model, want, folder)
            line = {"artifact": name, "path": str(path), "seconds": time.monotonic() - began}
        except Exception as e:
            line = {"artifact": name, "error": f"{type(e).__name__}: {(str(e).strip().splitlines() or [''])[0]}"}
        print(json.dumps(line), flush=True)


def _maker(name: str) -> Callable[[str, Any, dict[str, Any], Path], Path]:
    return _bundle if name.startswith("bundle") else _onnx if name.startswith("onnx") else _quantised


def _reference(want: dict[str, Any], folder: Path) -> Any:
    """The model; an input and torch's output written to `folder`."""
    import numpy as np
    import torch

    from edgemtl.model import MultiTaskViT

    if want["bundle"]:
        model = bundle_model(want["bundle"])
    else:
        torch.manual_seed(0)
        model = MultiTaskViT(ModelConfig.model_validate(want["config"])).eval()
    config: ModelConfig = model.config
    task = want["task"]
    image = _image(want, config)
    with torch.inference_mode():
        outputs, trace = model.trace(torch.from_numpy(image), [task])
    touched = [
        len(routing.expert.unique()) for (_, _), routing in sorted(trace.routings.items(), key=lambda i: i[0][1])
    ]
    np.save(folder / INPUT, image)
    np.save(folder / EXPECTED, outputs[task].numpy())
    if any("int8" in name or _maker(name) is _quantised for name in want["artifacts"]):
        pictures = want.get("pictures")
        _, checked = quantise.prepare_pictures(Path(pictures) if pictures else None, config, folder)
        with torch.inference_mode():
            maps = [model(torch.from_numpy(one[None]), [task])[task].numpy() for one in checked]
        np.save(folder / quantise.CHECK_EXPECTED, np.concatenate(maps))
    (folder / INFO).write_text(json.dumps({"touched": touched}))
    return model


def bundle_model(path: str | Path) -> Any:
    """The PyTorch model of a bundle's weights. Raises BundleError."""
    from edgemtl.bundle.layout import unpack_state
    from edgemtl.bundle.reader import Bundle
    from edgemtl.model.checkpoint import model_of

    with Bundle.open(path) as bundle:
        whole = bundle.manifest.model
        return model_of(whole, unpack_state(whole, bundle.tensor, stored=whole))


def _image(want: dict[str, Any], config: ModelConfig) -> Any:
    """A golden input of the bundle, a real frame, where there is one; else seeded noise."""
    import numpy as np

    if want["bundle"]:
        from edgemtl.bundle.reader import Bundle

        with Bundle.open(want["bundle"]) as bundle:
            if bundle.manifest.golden is not None:
                return np.ascontiguousarray(bundle.golden()[0]["0"], np.float32)
    return np.random.default_rng(0).normal(size=(1, 3, *config.image_size)).astype(np.float32)


def _onnx(name: str, model: Any, want: dict[str, Any], folder: Path, opset: int = OPSET) -> Path:
    """`name` is onnx-FORM."""
    from edgemtl.bench.forms import export

    form: Any = name.split("-")[1]
    return export(model, want["task"], form, folder / f"{name}.onnx", opset)


def _quantised(name: str, model: Any, want: dict[str, Any], folder: Path) -> Path:
    """`name` is TOOL-FORM."""
    tool, form = name.split("-")
    return quantise.quantise(name, _onnx(f"{tool}_from-{form}", model, want, folder, INT8_OPSET), folder)


def _bundle(name: str, model: Any, want: dict[str, Any], folder: Path) -> Path:
    """With every task of a given bundle; INT8 is calibrated on the pictures that the peers are calibrated on."""
    from edgemtl_compiler import compile_bundle

    int8 = name == "bundle-int8"
    if want["bundle"] and not int8 and want["target"] == "cpu":
        return Path(want["bundle"])
    path, count = folder / f"{name}.edgemtl", quantise.CALIBRATED
    calibration = {"calibrate": folder / quantise.PICTURES, "images": count, "evaluate": count}
    how: dict[str, Any] = {"precision": "int8", **calibration} if int8 else {}
    tasks = None if want["bundle"] else [want["task"]]
    compile_bundle(model, path, targets=[want["target"]], tasks=tasks, name="benchmark", origin=want["name"], **how)
    return path


if __name__ == "__main__":
    main(sys.argv[1])
