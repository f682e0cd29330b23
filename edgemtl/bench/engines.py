"""The engines that are compared, each as its makers recommend for one image at a time on a CPU.

Each function takes the worker's request and returns how to call the loaded model; it is run in a fresh process, and
what it imports is timed apart from what it loads. No heavy import at the top: the parent process reads this table.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemtl.bench.prepare import WEIGHTS

Call = Callable[[], Any]  # runs the network once on the input, gives the raw map
Load = Callable[[], Call]


@dataclass(frozen=True)
class Engine:
    """One row of the report. `artifacts` are what it can run, of a sparse model; `own` marks edgemtl's; engines are
    compared with others of their precision, "fp32" or "int8". `family` is what a user calls it, `how` the settings
    that it runs with, in words, so that anyone can object.
    """

    name: str
    family: str
    packages: tuple[str, ...]
    install: str
    artifacts: tuple[str, ...]
    prepare: Callable[[dict[str, Any], Any], Load]
    how: str = ""
    own: bool = False
    precision: str = "fp32"
    compiles: bool = False  # for tens of seconds, into a cache that a first run must fill

    def missing(self) -> str | None:
        """Why it cannot run on this machine; None when its packages are there."""
        if self.own:
            from edgemtl.runtime import tvm_light

            return tvm_light.unusable()
        if all(importlib.util.find_spec(p) for p in self.packages):
            return None
        return f"not installed: pip install {self.install}"

    def candidates(self, dense: bool) -> tuple[str, ...]:
        """Artifacts to try for a dense or a sparse model; "plain" stands for a model without experts."""
        if not dense or self.own:
            return self.artifacts
        return tuple(dict.fromkeys(a.replace("sparse", "plain").replace("dense", "plain") for a in self.artifacts))


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
        infer = core.compile_model(core.read_model(want["path"]), "CPU", settings).create_infer_request()

        def call() -> Any:
            infer.infer({0: image}, share_inputs=True)
            return infer.get_output_tensor(0).data.copy()

        return call

    return load


def _torch(want: dict[str, Any], image: Any) -> Load:
    torch: Any = importlib.import_module("torch")
    forms: Any = importlib.import_module("edgemtl.bench.forms")
    vit: Any = importlib.import_module("edgemtl.model.vit")
    files: Any = importlib.import_module("safetensors")
    from edgemtl.config import ModelConfig

    torch.set_num_threads(want["threads"])
    if want["compile"]:
        importlib.import_module("torch._dynamo")
        inductor: Any = importlib.import_module("torch._inductor.config")
        inductor.freezing = True  # weights packed at compile time

    def load() -> Call:
        with files.safe_open(str(Path(want["folder"]) / WEIGHTS), "pt") as file:
            config = ModelConfig.model_validate_json(file.metadata()["config"])
            state = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118  no mapping
        with torch.device("meta"):
            model = vit.MultiTaskViT(config)
        model.load_state_dict(state, assign=True)
        network = forms.Torch(model, want["task"], want["form"])
        del model, state
        if want["compile"]:
            network = torch.compile(network)
        tensor = torch.from_numpy(image)

        def call() -> Any:
            with torch.no_grad() if want["compile"] else torch.inference_mode():
                return network(tensor).numpy()

        return call

    return load


_ORT = "CPUExecutionProvider, all graph optimisations, sequential, intra-op threads as given"
_OPENVINO = "LATENCY hint, inference precision f32, 1 stream, threads as given, input shared"
_EXPORT = "written from the graph, opset {}; experts sparse (NonZero, GatherND, ScatterND each) or all dense"
_INT8 = "experts sparse or dense, opset 18, calibrated on the same 32 pictures as edgemtl"


def _table() -> dict[str, Engine]:
    ort, torch, forms = ("onnxruntime",), ("torch",), ("sparse", "dense")
    onnx = {opset: tuple(f"onnx-{form}-{opset}" for form in forms) for opset in (18, 23)}
    eager = ("torch-sparse", "torch-dense")
    int8 = {tool: tuple(f"{tool}-{form}-18" for form in forms) for tool in ("dynamic", "static", "nncf")}
    dynamic = "quantize_dynamic, INT8 weights per channel, INT8 activations by the frame"
    static = "quantize_static, QDQ, UINT8 activations, INT8 weights per channel"
    nncf = "nncf.quantize, transformer model type, MIXED preset"
    native = "one program for the task and this CPU, backend tvm-cpu, `Engine.raw`"
    rows = [
        Engine("edgemtl", "edgemtl", ("tvm_ffi",), '"edgemtl[cpu]"', ("bundle",), _edgemtl, native, own=True),
        Engine(
            "edgemtl-int8",
            "edgemtl",
            ("tvm_ffi",),
            '"edgemtl[cpu]"',
            ("bundle-int8",),
            _edgemtl,
            f"{native}; INT8 weights and activations, calibrated on 32 pictures",
            own=True,
            precision="int8",
        ),
        *(
            Engine(f"onnxruntime-{n}", "onnxruntime", ort, *ort, onnx[n], _onnxruntime, f"{_EXPORT.format(n)}; {_ORT}")
            for n in (18, 23)
        ),
        *(
            Engine(
                f"onnxruntime-{tool}",
                "onnxruntime",
                ort,
                *ort,
                int8[tool],
                _onnxruntime,
                f"{how}; {_INT8}; {_ORT}",
                precision="int8",
            )
            for tool, how in (("dynamic", dynamic), ("static", static))
        ),
        Engine(
            "openvino",
            "openvino",
            ("openvino",),
            "openvino",
            (onnx[18][0], onnx[23][0], onnx[18][1], onnx[23][1]),
            _openvino,
            f"{_EXPORT.format('18 or 23')}; {_OPENVINO}",
        ),
        Engine(
            "openvino-nncf",
            "openvino",
            ("openvino", "nncf"),
            "openvino nncf",
            int8["nncf"],
            _openvino,
            f"{nncf}; {_INT8}; {_OPENVINO}",
            precision="int8",
        ),
        Engine("torch", "torch", torch, *torch, eager, _torch, "eager, inference mode, experts sparse or dense"),
        Engine(
            "torch-compile",
            "torch-compile",
            torch,
            *torch,
            eager,
            _torch,
            "torch.compile, inductor with frozen weights, its cache warm, experts sparse or dense",
            compiles=True,
        ),
    ]
    return {e.name: e for e in rows}


ENGINES = _table()
