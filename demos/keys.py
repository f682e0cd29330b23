"""Single keys for the camera demo: from OpenCV's window, or from the terminal when there is none."""

from __future__ import annotations

import os
import select
import sys
from types import TracebackType
from typing import Any

import cv2

if sys.platform != "win32":
    import termios
    import tty


class Keys:
    """`with Keys(window) as keys: keys.pressed()` gives the key pressed since the last call, or an empty string."""

    def __init__(self, window: bool) -> None:
        self.window = window
        self._saved: list[Any] | None = None

    @staticmethod
    def screen() -> bool:
        """Whether a window can be shown: a display is there, and this OpenCV was built with windows."""
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
        return "GUI:                           NONE" not in cv2.getBuildInformation()

    def __enter__(self) -> Keys:
        if not self.window and sys.platform != "win32" and sys.stdin is not None and sys.stdin.isatty():
            self._saved = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)  # one key at a time; Ctrl-C still interrupts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._saved)
        if self.window:
            cv2.destroyAllWindows()

    def pressed(self) -> str:
        if self.window:
            code = cv2.waitKey(1)
            return chr(code & 0xFF) if code >= 0 else ""
        if self._saved is not None and select.select([sys.stdin], [], [], 0)[0]:
            return sys.stdin.read(1)
        return ""
