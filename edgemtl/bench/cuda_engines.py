"""What is measured on a GPU: edgemtl's own plans, and peers on the same weights and task.

An engine is made of a model, a task and images (float32 [batch, 3, H, W] on the host), which raises whatever its
library does not like, and is then called again and again: `submit` puts one frame's work into `stream` (a CUDA
stream's number), `result` waits and gives the maps as float32. The input is on the GPU already for all of them. Every
one multiplies in half precision, its fastest; the reference is PyTorch on the CPU in float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from edgemtl.model import MultiTaskViT


class Own:
    """The launch plans and the graph of backend tvm-cuda, planned for this batch."""

    def __init__(self, model: MultiTaskViT, task: str, images: Any) -> None:
        from edgemtl.graph.network import PREFIX
        from edgemtl.model.checkpoint import arrays
        from edgemtl.runtime.cuda.driver import Driver
        from edgemtl_compiler import precision
        from edgemtl_compiler.cuda import build, toolchain
        from edgemtl_compiler.cuda.check import PlanRunner

        weights = precision.half(model.config, arrays(model.state_dict()))
        planned = {n: p for n, p in build.plans(model.config, "f16", len(images)).items() if n in (PREFIX, task)}
        plans = {name: plan for name, (plan, _) in planned.items()}
        functions = {name: function for name, (_, function) in planned.items()}
        gpu = Driver()
        code = toolchain.cubin(gpu.arch, "f16", model.config.dim // model.config.heads)
        self._runner = PlanRunner(gpu, plans, functions, code.read_bytes, weights.parts)
        self._frames, self._task, self.stream = self._runner.frames, task, self._runner.frames.stream
        self._frames.give(images)

    def submit(self) -> None:
        self._frames.replay((self._task,), to_host=False)  # the maps of the others stay on the GPU, too

    def result(self) -> Any:
        return self._frames.fetch(self._task)

    def close(self) -> None:
        self._runner.close()


class CompiledDense:
    """torch.compile with CUDA graphs and tuned kernels; experts as one dense product, so that nothing waits for the
    host.
    """

    def __init__(self, model: MultiTaskViT, task: str, images: Any) -> None:
        import torch

        from edgemtl.bench.forms import Dense

        network = Dense(model, task).half().cuda()
        self._call: Any = torch.compile(network, mode="max-autotune", fullgraph=True)
        self._torch, self._image = torch, torch.from_numpy(images).half().cuda()
        torch._dynamo.mark_static_address(self._image)  # else every replay copies the input to a place of its own
        self._stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.stream = self._stream.cuda_stream
        self.submit()

    def submit(self) -> None:
        with self._torch.inference_mode(), self._torch.cuda.stream(self._stream):
            self._out = self._call(self._image)

    def result(self) -> Any:
        self._stream.synchronize()
        return self._out.float().cpu().numpy()


class OnnxCuda:
    """ONNX Runtime on the GPU, half precision, inputs and outputs bound there; exported for one image."""

    provider: ClassVar[str] = "CUDAExecutionProvider"
    options: ClassVar[dict[str, str]] = {}

    def __init__(self, model: MultiTaskViT, task: str, images: Any) -> None:
        import onnx
        import onnxruntime
        import torch
        from onnxruntime.transformers.float16 import convert_float_to_float16

        from edgemtl.bench.forms import export

        if len(images) != 1:
            raise ValueError("its export is for one image")
        if self.provider not in onnxruntime.get_available_providers():
            raise ValueError(f"this onnxruntime has no {self.provider}: pip install onnxruntime-gpu")
        with tempfile.TemporaryDirectory() as folder:
            path = export(model, task, "sparse", Path(folder) / "model.onnx", 20)
            proto = convert_float_to_float16(onnx.load(path), keep_io_types=True)
        stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        providers = self.providers(stream.cuda_stream)
        self._session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=providers)
        self._binding = self._session.io_binding()
        self._image, self._stream, self.stream = torch.from_numpy(images).cuda(), stream, stream.cuda_stream
        config = model.config
        self._map = torch.empty((1, config.task(task).channels, *config.map_size), device="cuda")
        for bind, name, tensor in (
            (self._binding.bind_input, "image", self._image),
            (self._binding.bind_output, "map", self._map),
        ):
            bind(name, "cuda", 0, np.float32, tuple(tensor.shape), tensor.data_ptr())
        self.submit()  # a graph is captured in the first run

    @classmethod
    def providers(cls, stream: int) -> list[tuple[str, dict[str, str]]]:
        """Who runs the nodes, in this order; what another provider refuses must not fall to the CPU."""
        shared = {"user_compute_stream": str(stream)}
        rest = [(OnnxCuda.provider, shared)] if cls.provider != OnnxCuda.provider else []
        return [(cls.provider, {**shared, **cls.options}), *rest]

    def submit(self) -> None:
        self._session.run_with_iobinding(self._binding)

    def result(self) -> Any:
        self._stream.synchronize()
        return self._map.cpu().numpy()


class OnnxTensorRT(OnnxCuda):
    """TensorRT through ONNX Runtime; parts that TensorRT refuses run on CUDA."""

    provider = "TensorrtExecutionProvider"
    options: ClassVar[dict[str, str]] = {"trt_fp16_enable": "1", "trt_cuda_graph_enable": "1"}


ENGINES: dict[str, Any] = {
    "edgemtl": Own,
    "torch-compile-dense": CompiledDense,
    "ort-cuda": OnnxCuda,
    "tensorrt": OnnxTensorRT,
}
