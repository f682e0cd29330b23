"""The engines that are compared, each as its makers recommend for one image at a time on a CPU.

Each function takes the worker's request and returns how to call the loaded model; it is run in a fresh process, and
what it imports is timed apart from what it loads. No heavy import at the top: the parent process reads this table.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgemtl.bench import held

Call = Callable[[], Any]  # runs the network once on the input, gives the raw map
Load = Callable[[], Call]
Prepare = Callable[[dict[str, Any], Any], Load]


@dataclass(frozen=True)
class Engine:
    """One row of the report: a runtime, and the form of a sparse model that it opens. `own` marks edgemtl's; engines
    are compared with others of their precision, "fp32" or "int8". `family` is what a user calls it, `how` the settings
    that it runs with, in words, so that anyone can object.
    """

    name: str
    family: str
    packages: tuple[str, ...]
    artifact: str
    prepare: Prepare
    how: str = ""
    own: bool = False
    precision: str = "fp32"

    def missing(self) -> str | None:
        """Why it cannot run on this machine; None when its packages are there."""
        if self.own:
            from edgemtl.runtime import tvm_light

            return tvm_light.unusable()
        absent = [p for p in self.packages if importlib.util.find_spec(p) is None]
        return f"not installed: pip install {' '.join(absent)}" if absent else None

    def opens(self, dense: bool) -> str | None:
        """Its artifact of a dense or a sparse model; None where another row of the same runtime opens the same."""
        if not dense or self.own:
            return self.artifact
        return None if self.artifact.endswith("-dense") else self.artifact.replace("sparse", "plain")


def _edgemtl(want: dict[str, Any], image: Any) -> Load:
    import edgemtl
    from edgemtl.runtime import tvm_light
    from edgemtl.runtime.backends import tvm_cpu  # noqa: F401  with what follows, all that `import` means for a peer

    open_bundle = edgemtl.load
    tvm_light.ffi()

    def load() -> Call:
        engine = open_bundle(want["path"], backend="tvm-cpu", threads=want["threads"])
        engine.activate(want["task"])
        want["engine_object"] = engine
        return lambda: engine.raw(image)[want["task"]]

    return load


def _onnxruntime(want: dict[str, Any], image: Any) -> Load:
    held.need(want)
    ort: Any = importlib.import_module("onnxruntime")

    def load() -> Call:
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = want["threads"], 1
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        session = ort.InferenceSession(want["path"], options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"image": image})[0]

    return load


def _openvino(want: dict[str, Any], image: Any) -> Load:
    held.need(want)
    ov: Any = importlib.import_module("openvino")
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": want["threads"],
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }

    def load() -> Call:
        core = ov.Core()
        model = core.compile_model(core.read_model(want["path"]), "CPU", settings)
        infer = model.create_infer_request()

        def call() -> Any:
            infer.infer({0: image}, share_inputs=True)
            return infer.get_output_tensor(0).data.copy()

        return call

    return load


_ORT = "CPUExecutionProvider, all graph optimisations, sequential, intra-op threads as given"
_OPENVINO = "LATENCY hint, inference precision f32, 1 stream, threads as given, input shared"
_NATIVE = "one program for the task and this CPU, backend tvm-cpu, `Engine.raw`"
_FORMS = {"": "sparse (NonZero, GatherND, ScatterND each)", "-dense": "all dense"}


def _peer(name: str, how: str, prepare: Prepare, tool: str = "onnx", *more: str) -> list[Engine]:
    """A runtime with one row per form of the experts. tool: first word of the artifacts; more: packages."""
    precision, files = ("fp32", "written from the graph, opset 23") if tool == "onnx" else ("int8", _INT8[tool])
    family, packages = name.split("-")[0], (name.split("-")[0], *more)
    words = {form: f"{files}; experts {said}; {how}" for form, said in _FORMS.items()}
    return [
        Engine(name + form, family, packages, f"{tool}-{form[1:] or 'sparse'}", prepare, said, precision=precision)
        for form, said in words.items()
    ]


_CALIBRATED = "of opset 18, calibrated on the same 32 pictures as edgemtl"
_INT8 = {
    "qdq": f"quantize_static, QDQ, UINT8 activations, INT8 weights per channel, {_CALIBRATED}",
    "nncf": f"nncf.quantize, transformer model type, MIXED preset, {_CALIBRATED}",
}
ENGINES = {
    e.name: e
    for e in [
        Engine("edgemtl", "edgemtl", (), "bundle", _edgemtl, _NATIVE, own=True),
        Engine("edgemtl-int8", "edgemtl", (), "bundle-int8", _edgemtl, f"{_NATIVE}; INT8 weights and activations, "
               "calibrated on 32 pictures", own=True, precision="int8"),
        *_peer("onnxruntime", _ORT, _onnxruntime),
        *_peer("onnxruntime-int8", _ORT, _onnxruntime, "qdq"),
        *_peer("openvino", _OPENVINO, _openvino),
        *_peer("openvino-int8", _OPENVINO, _openvino, "nncf", "nncf"),
    ]
}  # fmt: skip
