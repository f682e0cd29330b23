"""The test model's files, for running tests/suite on a machine that has no PyTorch, such as an emulated one.

`write` runs where PyTorch is. There the variable EDGEMTL_TEST_GIVEN names the folder, and tests/conftest.py reads it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

VARIABLE = "EDGEMTL_TEST_GIVEN"


def folder() -> Path | None:
    """The folder to read, if this is such a machine."""
    return Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None


def write(to: Path, micro: Any, bundle: Path) -> None:
    """The bundle, and inputs, outputs and the unchosen experts of the model `micro` of tests/conftest.py."""
    image, idle = micro.unchosen()
    (to / "model.json").write_text(json.dumps({"config": micro.config.model_dump(mode="json"), "idle": sorted(idle)}))
    outputs = {f"{task}/{n}": raw for task, raws in micro.outputs.items() for n, raw in raws.items()}
    save_file({**{f"input/{n}": a for n, a in micro.inputs.items()}, "image": image}, to / "inputs.safetensors")
    save_file(outputs, to / "outputs.safetensors")
    shutil.copy(bundle, to / "micro.edgemtl")


def read(given: Path) -> dict[str, Any]:
    """Fields of tests/conftest.py's Micro, without the model itself."""
    from edgemtl.config import ModelConfig

    model, inputs = json.loads((given / "model.json").read_text()), load_file(given / "inputs.safetensors")
    outputs: dict[str, dict[str, np.ndarray[Any, Any]]] = {}
    for name, raw in load_file(given / "outputs.safetensors").items():
        task, _, n = name.partition("/")
        outputs.setdefault(task, {})[n] = raw
    return {
        "config": ModelConfig(**model["config"]),
        "model": None,
        "inputs": {n.removeprefix("input/"): a for n, a in inputs.items() if n.startswith("input/")},
        "outputs": outputs,
        "idle": (inputs["image"], {(part, expert) for part, expert in model["idle"]}),
    }
