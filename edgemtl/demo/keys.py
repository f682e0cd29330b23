"""Single keys for the camera demo: from OpenCV's window, or from the terminal when there is none."""

from __future__ import annotations

import contextlib
import os
import re
import select
import sys
from types import TracebackType
from typing import Any

import cv2

from edgemtl.errors import EdgeMTLError

WINDOW = "edgemtl"

if sys.platform != "win32":
    import termios
    import tty


class Keys:
    """`with Keys(window) as keys: keys.pressed()` gives the key pressed since the last call, or an empty string."""

    def __init__(self, window: bool) -> None:
        if window and not self.windows():
            raise EdgeMTLError(
                "this OpenCV was built without windows; use --web, or pip uninstall opencv-python-headless and"
                " pip install opencv-python"
            )
        if window and not self.screen():
            raise EdgeMTLError("there is no screen here (DISPLAY is not set); use --web, or -o FOLDER")
        self.window = window
        self._open = False
        self._saved: list[Any] | None = None

    @staticmethod
    def windows() -> bool:
        """Whether this OpenCV was built with windows; the headless package, which edgemtl asks for, was not."""
        return not re.search(r"GUI:\s+NONE", cv2.getBuildInformation())

    @staticmethod
    def screen() -> bool:
        """Whether a window can be shown: a display is there, and this OpenCV was built with windows."""
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            return False
        return Keys.windows()

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
            visible = False
            with contextlib.suppress(cv2.error):  # some window systems object to the question before the first picture
                visible = cv2.getWindowProperty(WINDOW, cv2.WND_PROP_VISIBLE) >= 1
            if self._open and not visible:  # closed by hand
                return "q"
            self._open = visible
            return chr(code & 0xFF) if code >= 0 else ""
        if self._saved is not None and select.select([sys.stdin], [], [], 0)[0]:
            return sys.stdin.read(1)
        return ""
