"""Materials of models: MTL files and the pictures they name, read with limits."""

from __future__ import annotations

import io
import posixpath
import zipfile
from functools import lru_cache

import cv2
import numpy as np

from edgemtl.data.homes.catalogue import inside, read_member
from edgemtl.data.homes.mesh import Surface, Texture
from edgemtl.errors import DataError

MAX_PIXELS = 40_000_000  # of a texture's file
TEXTURE_SIDE = 256


def read_mtl(archive: zipfile.ZipFile, base: str, library: str) -> dict[str, dict[str, str]]:
    """What an MTL file says of each material, by name."""
    text = read_member(archive, posixpath.join(base, library), 4 << 20).decode("latin-1")
    found: dict[str, dict[str, str]] = {}
    key = ""
    for line in text.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "newmtl":
            key = rest.strip()
            found[key] = {}
        elif word in ("Kd", "Ks", "d", "map_Kd") and key:
            found[key][word] = rest.strip()
    return found


def read_surface(archive: zipfile.ZipFile, base: str, fields: dict[str, str]) -> Surface | None:
    """The surface of a material; None for one that is all but invisible."""
    try:
        alpha = float(fields.get("d", "1").split()[-1])
        colour = [float(word) for word in fields.get("Kd", "0.8 0.8 0.8").split()[:3]]
        shine = [float(word) for word in fields.get("Ks", "0 0 0").split()[:3]]
    except (ValueError, IndexError) as error:
        raise DataError(f"a material has a number that cannot be read ({error})") from error
    if alpha < 0.12:
        return None
    colour = [min(max(c if np.isfinite(c) else 0.5, 0.0), 1.0) for c in (colour * 3)[:3]]
    gloss = min(max(float(np.mean(shine or [0.0])), 0.0), 1.0) * 0.25
    gloss = gloss if np.isfinite(gloss) else 0.0
    if alpha < 0.7:  # glass: light and glossy, as it cannot be looked through
        colour, gloss = [0.35 + 0.5 * c for c in colour], 0.2
    texture = None
    if "map_Kd" in fields:
        names = (fields["map_Kd"], fields["map_Kd"].split()[-1])  # a name may hold spaces, or follow options
        there = [n for n in names if inside(posixpath.join(base, n)) in archive.NameToInfo]
        texture = read_texture(archive, posixpath.join(base, (there or names)[0]))
        colour = [1.0, 1.0, 1.0]
    red, green, blue = (float(np.clip(c, 0.03, 0.94)) ** 2.2 if texture is None else 1.0 for c in colour)
    return Surface((red, green, blue), texture, gloss)


@lru_cache(maxsize=256)
def _texture(archive: zipfile.ZipFile, path: str) -> Texture:
    from PIL import Image, UnidentifiedImageError

    data = read_member(archive, path)
    try:
        with Image.open(io.BytesIO(data)) as header:  # reads the size only
            width, height = header.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"the texture {path} is no picture that can be read ({error})") from error
    if width * height > MAX_PIXELS or min(width, height) < 1:
        raise DataError(f"the texture {path} has {width}x{height} pixels, more than {MAX_PIXELS} in all")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(f"the texture {path} cannot be decoded")
    if image.dtype != np.uint8:
        image = (image / 257).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, 2)
    cut = None
    size = (min(TEXTURE_SIDE, image.shape[1]), min(TEXTURE_SIDE, image.shape[0]))
    if image.shape[2] == 4 and image[..., 3].min() < 100:
        cut = (cv2.resize(image[..., 3], size, interpolation=cv2.INTER_AREA) > 100).astype(np.uint8)
    colours = cv2.resize(
        image[..., 2::-1] if image.shape[2] >= 3 else image[..., :1].repeat(3, 2), size, interpolation=cv2.INTER_AREA
    )
    return Texture.of(colours, cut)


def read_texture(archive: zipfile.ZipFile, path: str) -> Texture:
    """A picture of a catalogue, at most 256 pixels a side. Raises DataError where it is missing, broken or huge."""
    clean = inside(path)
    if clean is None:
        raise DataError(f"the texture's path {path!r} leaves the zip file")
    return _texture(archive, clean)
