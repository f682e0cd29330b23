"""The page in a real browser: headless Chromium, driven by Playwright, on the camera demo and a network stream."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mjpeg_stream import Stream

pytest.importorskip("uvicorn", reason='uvicorn is not installed: pip install "edgemtl[web]"')
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: apt-get install chromium (Debian's package chromium)"),
]

DEMO = Path(__file__).parents[2] / "demos" / "camera.py"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZE = (120, 160)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stream() -> Iterator[Stream]:
    with Stream(fps=25, size=SIZE) as stream:
        yield stream


@pytest.fixture(scope="module")
def demo(bundle: Path, stream: Stream) -> Iterator[str]:
    """The demo, run as users run it, on a free port; gives its address."""
    command = [sys.executable, str(DEMO), str(bundle), stream.url, "--web", "--address", "127.0.0.1:0"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if found := re.search(r"live page: (\S+)", line):
            break
    else:
        pytest.fail(f"the demo gave no page: {lines} {child.communicate()[1]}")
    yield found[1]
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "Traceback" not in err
    assert "measured on this machine" in out


Open = Callable[[], Any]


@pytest.fixture
def visit(chromium: Any, demo: str) -> Iterator[Open]:
    """Opens the page; afterwards no page may have complained, nor asked another machine for anything."""
    contexts, faults = [], []

    def look() -> Any:
        context = chromium.new_context()
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("request", lambda r: None if r.url.startswith((demo, "data:", "blob:")) else faults.append(r.url))
        page.goto(demo)
        moves(page)
        return page

    yield look
    for context in contexts:
        context.close()
    assert faults == []


def wait(page: Any, true: str, seconds: float = 30) -> None:
    """Wait for a JavaScript expression; Playwright's own waiting would need the page to allow eval."""
    end = time.monotonic() + seconds
    while not page.evaluate(true):
        assert time.monotonic() < end, f"it did not become true: {true}"
        page.wait_for_timeout(50)


def pictures(page: Any) -> int:
    return int(page.get_attribute("#picture", "data-pictures") or 0)


def moves(page: Any, by: int = 3) -> None:
    """Wait until so many more pictures have been drawn."""
    wait(page, f"Number(document.getElementById('picture').dataset.pictures || 0) >= {pictures(page) + by}")


def figure(page: Any, name: str) -> str:
    return page.inner_text(f'#figures dd[data-name="{name}"]')


def shows(page: Any, task: str) -> None:
    """Wait until `task` is the one that the page says is shown."""
    page.wait_for_selector(f'#tasks [data-key="{task}"][aria-pressed="true"]')


def pixel(page: Any, x: int, y: int) -> list[int]:
    return page.evaluate(
        f"Array.from(document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 1, 1).data)"
    )


def size(page: Any) -> list[int]:
    return page.evaluate("[document.getElementById('picture').width, document.getElementById('picture').height]")


def single(page: Any, task: str = "semseg") -> None:
    """One task, no map of experts."""
    page.click('#blocks [data-key="-1"]') if page.is_enabled('#blocks [data-key="-1"]') else None
    page.click(f'#tasks [data-key="{task}"]')
    wait(page, f"document.getElementById('picture').width === {SIZE[1]}")
    shows(page, task)


def test_the_picture_moves_and_so_do_the_figures(visit: Open) -> None:
    page = visit()
    wait(page, "Number(document.querySelector('[data-name=\"frames per second\"]').textContent) > 0")
    before, shown = pixel(page, 5, SIZE[0] - 5), figure(page, "frames shown, dropped")
    moves(page, 10)
    wait(page, f"document.querySelector('[data-name=\"frames shown, dropped\"]').textContent !== '{shown}'")
    assert re.fullmatch(r"\d+\.\d ms", figure(page, "engine and colours, p50"))
    assert before[3] == 255, "something was drawn"
    assert page.is_hidden("#message")


def test_a_click_switches_the_task_at_the_cost_foretold(visit: Open) -> None:
    page = visit()
    single(page)
    for task in ("depth", "edge", "normals"):
        previous = page.get_attribute('#tasks [aria-pressed="true"]', "data-key")
        said = page.inner_text(f'#tasks [data-key="{task}"] small')
        page.click(f'#tasks [data-key="{task}"]')
        shows(page, task)
        assert figure(page, "last switch").startswith(f"{previous} to {task}")
        mapped, dropped = figure(page, "it mapped, dropped").split(", ")
        assert said == f"maps {mapped}, drops {dropped}" or mapped == "own copies"
        assert page.inner_text(f'#tasks [data-key="{task}"] small') == "shown"
        assert figure(page, "it took").endswith(" ms")
    single(page)
    page.keyboard.press("2")
    shows(page, "depth")


def test_blending(visit: Open) -> None:
    page = visit()
    single(page, "edge")
    page.fill("#blend", "0")
    wait(
        page,
        "(() => { const d = document.getElementById('picture').getContext('2d').getImageData(10, 10, 1, 1).data;"
        " return Math.abs(d[0] - 90) < 12 && Math.abs(d[1] - 30) < 12 && Math.abs(d[2] - 200) < 12; })()",
    )  # the stream's own colour there
    page.fill("#blend", "100")
    wait(
        page,
        "(() => { const d = document.getElementById('picture').getContext('2d').getImageData(10, 10, 1, 1).data;"
        " return Math.abs(d[0] - d[1]) < 6 && Math.abs(d[1] - d[2]) < 6; })()",
    )  # edges are grey


def test_two_tasks_side_by_side_with_their_keys(visit: Open) -> None:
    page = visit()
    single(page, "depth")
    said = page.inner_text('#beside [data-key="semseg"] small')
    page.click('#beside [data-key="semseg"]')
    wait(page, f"document.getElementById('picture').width === {2 * SIZE[1]}")
    page.wait_for_selector('#beside [data-key="semseg"][aria-pressed="true"]')  # figures come after the picture
    mapped = figure(page, "it mapped, dropped").split(", ")[0]
    assert said == f"maps {mapped}" or mapped == "own copies"
    wait(page, "document.querySelectorAll('#keys .key').length === 2")
    assert page.locator("#keys .scale").count() == 1
    assert " m" in page.inner_text("#keys .scale")
    assert page.locator("#keys .swatch").count() >= 1
    page.click('#beside [data-key=""]')
    wait(page, f"document.getElementById('picture').width === {SIZE[1]}")


def test_the_map_of_experts(visit: Open) -> None:
    page = visit()
    single(page, "depth")
    if not page.is_hidden("#no-experts"):
        pytest.skip(page.inner_text("#no-experts"))
    block = page.get_attribute("#blocks button:nth-child(2)", "data-key")
    page.click(f'#blocks [data-key="{block}"]')
    wait(page, f"document.getElementById('picture').width === {2 * SIZE[1]}")
    wait(page, "document.querySelectorAll('#keys .key').length === 2")
    assert "expert " in page.inner_text("#keys .key:nth-child(2)")
    single(page, "depth")


def test_a_second_browser_joins(visit: Open) -> None:
    first = visit()
    second = visit()
    for page in (first, second):
        wait(page, "document.querySelector('[data-name=browsers]').textContent === '2'")
    single(first, "semseg")
    second.click('#tasks [data-key="normals"]')
    shows(first, "normals")
    shows(second, "normals")
    moves(first)
    moves(second)


def test_a_killed_stream_is_told_and_comes_back(visit: Open, stream: Stream) -> None:
    page = visit()
    stream.kill()
    wait(page, "document.getElementById('message').textContent.includes('trying again')")
    assert page.is_visible("#message")
    assert "127.0.0.1" in page.inner_text("#message")
    single(page, "semseg")
    page.click('#tasks [data-key="depth"]')  # the last frame is drawn anew
    shows(page, "depth")
    stream.start()
    wait(page, "document.getElementById('message').hidden")
    moves(page)


def test_another_page_can_neither_look_nor_switch(chromium: Any, demo: str, stream: Stream) -> None:
    """A page of another origin in the same browser; the stream's server stands in for it."""
    page = chromium.new_page()
    page.goto(stream.url.replace("stream.mjpeg", "page.html"), wait_until="commit")
    told = page.evaluate(
        "(at) => new Promise((done) => { const s = new WebSocket(at);"
        " s.onopen = () => done('open'); s.onerror = () => done('refused'); })",
        demo.replace("http", "ws") + "live",
    )
    assert told == "refused"
    assert page.evaluate("(at) => fetch(at).then(() => 'read', () => 'refused')", f"{demo}figures.json") == "refused"
    page.close()


def test_a_demo_that_stops_is_told(chromium: Any, bundle: Path) -> None:
    command = [sys.executable, str(DEMO), str(bundle), "--web", "--address", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        found = next(filter(None, (re.search(r"live page: (\S+)", line) for line in child.stdout)))
        page = chromium.new_page()
        page.goto(found[1])
        moves(page)
        child.send_signal(signal.SIGTERM)
        wait(page, "document.getElementById('message').textContent.includes('has stopped')")
        child.communicate(timeout=60)
        page.close()
