"""Where a tensor of another library lies on the GPU, told by DLPack (dmlc/dlpack, the form without versions).

The producer makes our stream wait for its work, so nothing is copied and the host waits for nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from edgemtl.errors import FrameError

CUDA = 2  # DLPack's number of the device kind
_KINDS = ("int", "uint", "float", "handle", "bfloat", "complex", "bool")  # by DLPack's numbers of them
_NAME = b"dltensor"
# Its own copy of the function: the argument types of one are common to all who fetch it from `pythonapi`.
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_uint64),
        ("device", ctypes.c_int32),
        ("number", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
    )


class Tensor(Protocol):
    """What PyTorch's, CuPy's and other libraries' tensors have."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...

    def __dlpack_device__(self) -> tuple[Any, Any]: ...


@dataclass(frozen=True)
class View:
    """A tensor on the GPU: its device address, shape, strides in elements, and type, such as "float32"."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"a {self.dtype} CUDA tensor of shape {self.shape}{'' if self.contiguous else ', not contiguous'}"

    @property
    def contiguous(self) -> bool:
        return all(
            n == 1 or have == want
            for n, have, want in zip(self.shape, self.strides, _row_major(self.shape), strict=True)
        )


def is_tensor(image: object) -> bool:
    """Whether to ask `image` for DLPack: any tensor but a NumPy array, which has it, too."""
    return hasattr(image, "__dlpack_device__") and not hasattr(image, "ctypes")


@contextmanager
def opened(tensor: Tensor, number: int, stream: int) -> Iterator[View]:
    """A tensor on GPU `number`, which stays for as long as the context lasts; what comes into `stream` later finds its
    values there. Raises FrameError for anything else.
    """
    device, index = tensor.__dlpack_device__()
    if (device, index) != (CUDA, number):
        where = f"GPU {index}" if device == CUDA else "no CUDA device"
        raise FrameError(f"the image lies on {where}; it must be a NumPy array or a CUDA tensor on GPU {number}")
    capsule = tensor.__dlpack__(stream=stream)
    found = described(capsule)
    shape = tuple(found.shape[i] for i in range(found.ndim))
    strides = tuple(found.strides[i] for i in range(found.ndim)) if found.strides else _row_major(shape)
    kind = _KINDS[found.code] if found.code < len(_KINDS) else f"type {found.code}, "
    dtype = f"{kind}{found.bits}" + (f"x{found.lanes}" if found.lanes != 1 else "")
    yield View(found.data + found.offset, shape, strides, dtype)
    del capsule  # it still owned the tensor, and gives it back when it goes


def described(capsule: Any) -> _Tensor:
    """The struct in a capsule that nobody has consumed yet; it lives as long as the capsule."""
    return _Tensor.from_address(_pointer(capsule, _NAME))


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))
