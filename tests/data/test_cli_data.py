"""`edgemtl data`: what the user types and reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgemtl.cli.data import app, parse_size
from edgemtl.data.rooms import write
from edgemtl.errors import ConfigError, DataError, EdgeMTLError

RUN = CliRunner()


def test_rooms(tmp_path: Path) -> None:
    out = tmp_path / "set"
    done = RUN.invoke(app, ["rooms", "--count", "2", "--size", "16x32", "--seed", "1", "--workers", "1", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 train and 0 val images" in done.output
    assert len(list((out / "images").iterdir())) == 2


def test_clip(tmp_path: Path) -> None:
    out = tmp_path / "frames"
    arguments = ["clip", "--seconds", "0.5", "--fps", "4", "--size", "16x32", "--workers", "1", str(out)]
    done = RUN.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 frames of 32x16 pixels" in done.output
    assert len(list(out.iterdir())) == 2


def test_ctrl_c_tells_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = write.write_room

    def stop(job: write.RoomSet, out: Path, images: list[int]) -> int:
        if images[0] == 4:
            raise KeyboardInterrupt
        return original(job, out, images)

    monkeypatch.setattr(write, "write_room", stop)
    arguments = ["rooms", "--count", "8", "--size", "16x32", "--workers", "1", str(tmp_path / "set")]
    done = RUN.invoke(app, arguments)
    assert done.exit_code == 130
    assert "stopped: 4 of 8 images are in" in done.output
    assert "run the same command again" in done.output
    monkeypatch.undo()
    assert RUN.invoke(app, arguments).exit_code == 0


@pytest.mark.parametrize("text", ["", "128", "128x", "x256", "128*256", "-1x5", "1.5x2", "128x256x3", "9999999x1"])
def test_bad_size(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="HxW"):
        parse_size(text)
    done = RUN.invoke(app, ["rooms", f"--size={text}", str(tmp_path)])
    assert isinstance(done.exception, ConfigError)


def test_good_size() -> None:
    assert parse_size("128x256") == parse_size(" 128X256 ") == (128, 256)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["rooms", "--count", "0", "OUT"], ConfigError),
        (["rooms", "--workers", "0", "OUT"], ConfigError),
        (["rooms", "--seed", "-3", "OUT"], ConfigError),
        (["rooms", "FILE"], DataError),
        (["clip", "--fps", "0", "OUT"], ConfigError),
        (["clip", "OUT.gif"], ConfigError),
        (["clip", "FILE"], DataError),
    ],
)
def test_bad_input_is_one_sentence(arguments: list[str], error: type[EdgeMTLError], tmp_path: Path) -> None:
    (tmp_path / "FILE").write_text("")
    *head, last = arguments
    done = RUN.invoke(app, [*head, str(tmp_path / last)])
    assert isinstance(done.exception, error)
    assert "\n" not in str(done.exception)
    assert ";" in str(done.exception)  # what was given; what to do
