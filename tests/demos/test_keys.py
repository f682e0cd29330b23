"""Keys of the window, on a stand-in for OpenCV's windows, which the headless package lacks."""

from __future__ import annotations

from types import ModuleType

import cv2
import pytest

from edgemtl.demo import keys
from edgemtl.errors import EdgeMTLError


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """edgemtl/demo/keys.py, on an OpenCV with windows and a screen."""
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           QT5")
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    monkeypatch.setenv("DISPLAY", ":0")
    return keys


def test_a_window_closed_by_hand_ends_the_show(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[float | None] = [None, 1.0, 1.0, 0.0]  # before the first picture, open twice, closed
    typed = iter([-1, ord("n"), -1, -1])

    def visible(*_: object) -> float:
        found = shown.pop(0)
        if found is None:
            raise cv2.error("there is no such window")
        return found

    monkeypatch.setattr(cv2, "waitKey", lambda _: next(typed))
    monkeypatch.setattr(cv2, "getWindowProperty", visible)
    with module.Keys(True) as keys:
        assert [keys.pressed() for _ in range(4)] == ["", "n", "", "q"]


def test_without_windows_it_says_what_to_install(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "  GUI:                           NONE")
    assert not module.Keys.screen()
    with pytest.raises(EdgeMTLError, match="use --web, or pip uninstall opencv-python-headless"):
        module.Keys(True)


def test_without_a_screen_it_says_so(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(module.sys, "platform", "linux")
    with pytest.raises(EdgeMTLError, match="no screen here"):
        module.Keys(True)
    module.Keys(False)
