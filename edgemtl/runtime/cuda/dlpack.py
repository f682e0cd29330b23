"""Where a tensor of another library lies on the GPU, told by DLPack (dmlc/dlpack, the form without versions).

The producer makes our stream wait for its work, so nothing is copied and the host waits for nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgemtl.errors import FrameError

CUDA, FLOAT = 2, 2  # DLPack's numbers of the device kind and of the kind of number
_NAME = b"dltensor"


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


@contextmanager
def opened(tensor: Any, shape: tuple[int, ...], number: int, stream: int) -> Iterator[int]:
    """The device address of a contiguous float32 tensor of `shape` on GPU `number`, for as long as the context lasts;
    what comes into `stream` later finds its values there.

    Raises FrameError, saying what was given and what is needed, for anything else.
    """
    need = f"a contiguous float32 CUDA tensor of shape {shape} on GPU {number}"
    try:
        device, index = tensor.__dlpack_device__()
    except AttributeError:
        raise FrameError(f"the image is a {type(tensor).__name__}; it must be an array or {need}") from None
    if (device, index) != (CUDA, number):
        where = f"GPU {index}" if device == CUDA else "no CUDA device"
        raise FrameError(f"the image lies on {where}; it must be a NumPy array or {need}")
    capsule = tensor.__dlpack__(stream=stream)
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    found = _Tensor.from_address(pointer(capsule, _NAME))
    given = tuple(found.shape[i] for i in range(found.ndim))
    plain = (found.code, found.bits, found.lanes) == (FLOAT, 32, 1)
    if given != shape or not plain or not _contiguous(found, given):
        raise FrameError(f"the image is a CUDA tensor of shape {given}; it must be {need}")
    yield found.data + found.offset  # the capsule still owns the tensor, and gives it back when it goes
    del capsule


def _contiguous(tensor: _Tensor, shape: tuple[int, ...]) -> bool:
    if not tensor.strides:
        return True
    step = 1
    for i in reversed(range(len(shape))):
        if shape[i] != 1 and tensor.strides[i] != step:
            return False
        step *= shape[i]
    return True
