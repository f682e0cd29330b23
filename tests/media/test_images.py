"""The content decides what a file is, and one reader decodes it."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest

from edgemtl.errors import FrameError
from edgemtl.media.images import kind, read_image, sniff, unread
from edgemtl.media.sources import open_source

SHADES = np.repeat(np.repeat(np.arange(6, dtype=np.uint8).reshape(2, 3, 1) * 40, 16, 0), 16, 1).repeat(3, 2)


def turned_jpeg(orientation: int = 6) -> bytes:
    """SHADES [32, 48, 3] as a JPEG whose EXIF says that it lies on its side."""
    exif = PIL.Image.Exif()
    exif[0x112] = orientation
    out = io.BytesIO()
    PIL.Image.fromarray(SHADES).save(out, "JPEG", quality=95, exif=exif)
    return out.getvalue()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm", ".pgm", ".pam", ".jp2", ".avif"])
@pytest.mark.parametrize("name", ["a", "a.txt", "a.mp4"])
def test_any_name(tmp_path: Path, suffix: str, name: str) -> None:
    if not cv2.haveImageWriter(f"x{suffix}"):
        pytest.skip(f"this OpenCV does not write {suffix}")
    picture = SHADES[..., 0] if suffix == ".pgm" else SHADES
    (tmp_path / name).write_bytes(cv2.imencode(suffix, picture)[1].tobytes())
    with open_source(tmp_path / name) as source:
        assert source.kind == "image"
        (frame,) = source
    assert frame.image.shape == SHADES.shape
    assert np.abs(frame.image.astype(int) - SHADES).mean() < 8


@pytest.mark.parametrize("name", ["a.jfif", "a", "a.avi"])
def test_exif_turns_whatever_the_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(turned_jpeg())
    (frame,) = open_source(tmp_path / name)
    assert frame.image.shape == (48, 32, 3)
    assert read_image(tmp_path / name, turn=False).shape == SHADES.shape


@pytest.mark.parametrize(
    ("head", "name", "format_"),
    [
        (b"\0\0\0\x18ftypheic", "a.heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a.jpg", "HEIC"),
        (b"\xff\x0a", "a.jxl", "JPEG XL"),
        (b"II*\0\x08\0\0\0", "a.NEF", "camera raw"),
        (b"II*\0\x10\0\0\0CR", "a", "camera raw"),
        (b"%PDF-1.7", "a.png", "PDF"),
        (b'<?xml version="1.0"?><svg ', "a.svg", "SVG"),
    ],
)
def test_what_is_not_read_is_named(tmp_path: Path, head: bytes, name: str, format_: str) -> None:
    (tmp_path / name).write_bytes(head + bytes(60))
    with pytest.raises(FrameError, match=f"{name} is a {format_} file, which is not read; convert it to JPEG or PNG"):
        open_source(tmp_path / name)
    with pytest.raises(FrameError, match=format_):
        read_image(tmp_path / name)


def test_what_is_no_picture() -> None:
    for head in (b"", b"\0\0\0\x20ftypisom", b"RIFF\1\2\3\4AVI ", b"BMX, a text", b"PK\3\4"):
        assert kind(head) == ("", False, False), head
    assert sniff(Path("/dev/null")) == ("", False, False)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_cut_file(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    for share in (0.3, 0.6, 0.95):
        (tmp_path / "a").write_bytes(data[: int(share * len(data))])
        with pytest.raises(FrameError, match="is cut off before its end"):
            read_image(tmp_path / "a")
    (tmp_path / "a").write_bytes(data + bytes(100))
    assert read_image(tmp_path / "a").shape == noise.shape, "more after its end is no harm"


@pytest.mark.parametrize("format_", ["WEBP", "PNG"])
def test_an_animation_is_told(tmp_path: Path, format_: str) -> None:
    pictures = [PIL.Image.fromarray(np.roll(SHADES, i, 1)) for i in (0, 9)]
    exif = PIL.Image.Exif()
    exif[0x10E] = "a room"
    extras = {"exif": exif, "icc_profile": PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()}
    for name, more in (("moving", {"save_all": True, "append_images": pictures[1:]}), ("still", extras)):
        pictures[0].save(tmp_path / name, format_, lossless=True, **more)
    assert (sniff(tmp_path / "moving"), sniff(tmp_path / "still").moving) == (
        (format_ if format_ == "PNG" else "WebP", True, True),
        False,
    )
    with open_source(tmp_path / "moving") as source:
        assert len(list(source)) == 1
    assert "only its first picture is read" in source.left_out.lines()[0]


def test_bytes_after_the_end_of_a_png_are_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(cv2.imencode(".png", SHADES)[1].tobytes() + bytes(1 << 17))
    np.testing.assert_array_equal(read_image(tmp_path / "a"), SHADES)


def test_a_gif_is_an_image_or_a_video(tmp_path: Path) -> None:
    pictures = [PIL.Image.fromarray(np.roll(SHADES, i, 1)) for i in (0, 9, 18)]
    pictures[0].save(tmp_path / "still.gif")
    pictures[0].save(tmp_path / "moving", "GIF", save_all=True, append_images=pictures[1:], loop=0)
    for name, kind_, count in [("still.gif", "image", 1), ("moving", "video", 3)]:
        with open_source(tmp_path / name) as source:
            assert (source.kind, len(list(source))) == (kind_, count)


def test_a_variant_that_is_not_read_is_told_from_damage(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(cv2.imencode(".tif", np.zeros((4, 5, 3), np.float32))[1].tobytes())
    with pytest.raises(FrameError, match=r"is a TIFF file that cannot be decoded: .* convert it to an 8-bit PNG"):
        read_image(tmp_path / "a.tif")


def test_pages_are_told_and_small_copies_are_none(tmp_path: Path) -> None:
    page, small = PIL.Image.fromarray(SHADES), PIL.Image.fromarray(SHADES[::4, ::4])
    page.save(tmp_path / "pages", "TIFF", save_all=True, append_images=[page, page])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "copy", "TIFF", save_all=True, append_images=[small])
    page.save(tmp_path / "one", "TIFF")
    assert "pages has 3 pages: only the first is read" in unread(tmp_path / "pages")
    assert unread(tmp_path / "copy") == unread(tmp_path / "one") == ""
    (tmp_path / "damaged").write_bytes(b"II*\0\x08\0\0\0\xff\xff" + bytes(99))
    assert unread(tmp_path / "damaged") == ""
