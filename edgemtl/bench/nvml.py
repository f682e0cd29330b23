"""Energy of a GPU, from NVIDIA's management library (libnvidia-ml.so.1) through ctypes: the board's own counter."""

from __future__ import annotations

import ctypes

LIBRARY = "libnvidia-ml.so.1"


class Meter:
    """The energy counter of one GPU. `absent` says why there is none; then `millijoules` is None."""

    def __init__(self, number: int = 0, library: str = LIBRARY) -> None:
        self.absent = ""
        self._device = ctypes.c_void_p()
        try:
            self._lib = ctypes.CDLL(library)
        except OSError:
            self.absent = f"{library} cannot be loaded"
            return
        if self._lib.nvmlInit_v2() or self._lib.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(self._device)):
            self.absent = f"{library} knows no GPU number {number}"
        elif self.millijoules() is None:
            self.absent = "this GPU has no energy counter"

    def millijoules(self) -> int | None:
        """Since the driver was loaded; it grows about every 20 ms to 100 ms, so measure over a second or more."""
        value = ctypes.c_ulonglong()
        if self.absent or self._lib.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(value)):
            return None
        return value.value
