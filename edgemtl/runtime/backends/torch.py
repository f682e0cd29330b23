"""The reference: PyTorch, rebuilt from any bundle's weights, with no program needed.

For every active task it holds the exact slice of the model (its gates, the experts of its path, its head); the slices
share one trunk. The weights are unpacked copies, so nothing of them is mapped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgemtl.bundle.layout import unpack_state
from edgemtl.bundle.reader import Bundle
from edgemtl.runtime.backends.base import Array, Backend, Cell, Choice, Get, Ran

if TYPE_CHECKING:
    from torch import Tensor

    from edgemtl.model import MultiTaskViT

_OWN = ("heads.", ".mlp.gate.", ".mlp.experts.")  # in the names of what tasks do not share


class Torch(Backend):
    name = "torch"
    packages = ("torch",)
    extra = "train"
    CAPABILITIES = {  # noqa: RUF012
        "sparse experts": Cell("sparse-kept", "each expert runs over the tokens that chose it"),
        "shared prefix": Cell("yes", "the slices share the trunk, which runs once up to the first gate"),
        "mapped weights": Cell("cannot", "unpacks its own copies"),
        "residency": Cell("cannot", "its copies are PyTorch's; not measured from a mapping"),
    }

    def __init__(self, bundle: Bundle, choice: Choice, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.forks = threads == 1  # OpenMP's threads are missing in a child, which would wait for them
        self._torch, self._bundle = torch, bundle
        self._slices: dict[str, MultiTaskViT] = {}
        self._trunk: dict[str, Tensor] = {}

    @classmethod
    def choose(cls, bundle: Bundle) -> Choice:
        return Choice(None, "it rebuilds the PyTorch model from the bundle's weights")

    def bind(self, task: str, get: Get) -> None:
        from edgemtl.model import MultiTaskViT

        whole = self._bundle.manifest.model
        config = whole.alone(task)
        state = unpack_state(config, get, stored=whole)
        tensors = {k: self._trunk[k] if k in self._trunk else self._torch.from_numpy(v) for k, v in state.items()}
        with self._torch.device("meta"):
            model = MultiTaskViT(config)
        model.load_state_dict(tensors, assign=True)
        self._trunk |= {k: v for k, v in tensors.items() if not any(own in k for own in _OWN)}
        self._slices[task] = model.eval()

    def release(self, task: str) -> None:
        self._slices.pop(task, None)

    def run(self, image: Array, tasks: Sequence[str]) -> Ran:
        maps, seconds = {}, {}
        with self._torch.inference_mode():
            start = time.perf_counter()
            tokens = self._slices[tasks[0]].prefix(self._torch.from_numpy(image))
            seconds["prefix"] = time.perf_counter() - start
            for task in tasks:
                start = time.perf_counter()
                maps[task] = self._slices[task].suffix(tokens, task)[0].numpy()
                seconds[task] = time.perf_counter() - start
        return Ran(maps, seconds)

    def close(self) -> None:
        self._slices.clear()
        self._trunk.clear()
