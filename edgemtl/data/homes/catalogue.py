"""Reads Sweet Home 3D furniture catalogues (.sh3f): zip files with a table of models, OBJ meshes and textures.

A catalogue may come from anywhere, so nothing in it is trusted: sizes are limited before a member is unpacked, paths
must stay in the zip, numbers must be finite and of a size that fits a home. A bad entry is left out and counted.
"""

from __future__ import annotations

import glob
import hashlib
import posixpath
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from edgemtl.data.homes.rules import classify
from edgemtl.errors import DataError

INSTALLED = "/usr/share/sweethome3d/furniture/*.sh3f"  # where Debian's package puts them
TABLE = "PluginFurnitureCatalog.properties"
MAX_TABLE, MAX_MEMBER, MAX_MODEL = 4 << 20, 64 << 20, 96 << 20  # bytes, unpacked
MAX_MODELS, MAX_CATALOGUE = 5000, 1 << 30
SMALLEST, LARGEST = 0.0005, 30.0  # metres, a model's longest side at least and at most


@dataclass(frozen=True)
class Entry:
    """One model of a catalogue: what it is, and its width, depth and height in metres.

    `elevation` is the height of its base, `top` the height at which things can stand on it (-1: nothing can, None: not
    said), `turn` the catalogue's rotation of the mesh, row by row. `file` is the catalogue's path.
    """

    id: str
    name: str
    category: str
    tags: str
    path: str
    file: str
    size: tuple[float, float, float]
    elevation: float
    top: float | None
    turn: tuple[float, ...]
    creator: str
    licence: str
    cls: int
    role: str


@dataclass
class Catalogue:
    """Entries by role, in the order of the files, and why others were left out."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    @property
    def roles(self) -> dict[str, list[Entry]]:
        out: dict[str, list[Entry]] = {}
        for entry in self.entries:
            out.setdefault(entry.role, []).append(entry)
        return out


def furniture_files(given: list[Path] | None = None) -> list[Path]:
    """The catalogues asked for, or the installed ones, sorted by name. Raises DataError where there are none."""
    if given:
        for path in given:
            if not path.is_file():
                raise DataError(f"there is no furniture file {path}; give a .sh3f file, or leave --furniture out")
        return sorted(given, key=lambda path: (path.name, str(path)))
    found = sorted(Path(name) for name in glob.glob(INSTALLED))
    if not found:
        raise DataError(
            "no furniture is installed; type: apt-get install sweethome3d-furniture, or give --furniture FILE.sh3f"
        )
    return found


def inside(path: str) -> str | None:
    """A member's path in normal form, or None for one that leaves the zip."""
    clean = posixpath.normpath(path.replace("\\", "/").lstrip("/"))
    if clean in ("", ".") or clean.startswith("..") or ":" in clean.split("/")[0] or "\0" in clean:
        return None
    return clean


def read_member(archive: zipfile.ZipFile, path: str, limit: int = MAX_MEMBER) -> bytes:
    """A member's bytes. Raises DataError where it is missing, damaged, or larger than `limit` bytes unpacked."""
    clean = inside(path)
    if clean is None:
        raise DataError(f"the path {path!r} leaves the zip file")
    try:
        info = archive.getinfo(clean)
        if info.file_size > limit:
            raise DataError(f"{clean} has {info.file_size} bytes, more than {limit}")
        with archive.open(info) as stream:
            data = stream.read(limit + 1)
    except KeyError:
        raise DataError(f"there is no {clean} in the zip file") from None
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{clean} cannot be unpacked ({error})") from error
    if len(data) > limit:
        raise DataError(f"{clean} unpacks to more than {limit} bytes")
    return data


def unescape(text: str) -> str:
    r"""The value of a .properties line: \uXXXX and backslash pairs become the characters meant."""
    return re.sub(
        r"\\(u([0-9a-fA-F]{4})|(.))",
        lambda m: chr(int(m[2], 16)) if m[2] else {"t": "\t", "n": " ", "r": " "}.get(m[3], m[3]),
        text,
    )


def open_zip(path: Path) -> zipfile.ZipFile:
    """The catalogue as a zip file. Raises DataError where it is none, or unpacks to more than 1 GiB."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is no furniture catalogue ({error}); give a .sh3f file of Sweet Home 3D") from error
    total = sum(info.file_size for info in archive.infolist())
    if total > MAX_CATALOGUE:
        archive.close()
        raise DataError(f"{path} unpacks to {total} bytes, more than {MAX_CATALOGUE}; give a smaller catalogue")
    return archive


def read_catalogue(path: Path) -> Catalogue:
    """Entries of one file, models not yet read. Raises DataError where the file is no catalogue."""
    with open_zip(path) as archive:
        try:
            text = read_member(archive, TABLE, MAX_TABLE).decode("latin-1")
        except DataError as error:
            raise DataError(f"{path} is no furniture catalogue ({error}); give a .sh3f of Sweet Home 3D") from None
    common: dict[str, str] = {}
    models: dict[int, dict[str, str]] = {}
    for line in text.splitlines():
        match = re.match(r"\s*(\w+)(?:#(\d{1,9}))?\s*=\s*(.*)", line)
        if match:
            at = common if match[2] is None else models.setdefault(int(match[2]), {})
            at[match[1]] = unescape(match[3]).strip()
    out = Catalogue()
    for number in sorted(models)[:MAX_MODELS]:
        fields = models[number]
        try:
            out.entries.append(_entry(path, fields, common))
        except (KeyError, ValueError) as error:
            out.skipped.append(f"{path.name}: model {number} ({fields.get('name', '')!r}): {error}")
    if len(models) > MAX_MODELS:
        out.skipped.append(f"{path.name}: {len(models) - MAX_MODELS} models after the first {MAX_MODELS}")
    return out


def _entry(path: Path, fields: dict[str, str], common: dict[str, str]) -> Entry:
    """Raises KeyError or ValueError for an entry that cannot be used."""

    def centimetres(key: str) -> float:
        value = float(fields[key]) / 100
        if not np.isfinite(value) or abs(value) > LARGEST:
            raise ValueError(f"its {key} is {fields[key]} cm")
        return value

    for key in ("model", "width", "depth", "height"):
        if key not in fields:
            raise ValueError(f"it has no {key}")
    where = inside(fields["model"])
    if where is None:
        raise ValueError(f"its path {fields['model']!r} leaves the zip file")
    size = (centimetres("width"), centimetres("depth"), centimetres("height"))
    if min(size) <= 0 or max(size) < SMALLEST:
        raise ValueError(f"its size is {size} m")
    turn = tuple(float(word) for word in fields.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())
    if len(turn) != 9 or not np.isfinite(turn).all() or abs(abs(np.linalg.det(np.reshape(turn, (3, 3)))) - 1) > 0.05:
        raise ValueError("its rotation is no rotation matrix")
    top = centimetres("dropOnTopElevation") if "dropOnTopElevation" in fields else None
    if top is not None and top < 0:
        top = -1.0
    name, category, tags = (fields.get(key, "") for key in ("name", "category", "tags"))
    cls, role = classify(category, name, tags)
    return Entry(
        id=fields.get("id", where),
        name=name,
        category=category,
        tags=tags,
        path=where,
        file=str(path),
        size=size,
        elevation=centimetres("elevation") if "elevation" in fields else 0.0,
        top=top,
        turn=turn,
        creator=fields.get("creator", "unknown"),
        licence=fields.get("license", common.get("license", "not stated")),
        cls=cls,
        role=role,
    )


@lru_cache(maxsize=4)
def load_catalogues(files: tuple[str, ...]) -> Catalogue:
    """All entries of some files, one after the other; read once per process."""
    out = Catalogue()
    for name in files:
        one = read_catalogue(Path(name))
        out.entries += one.entries
        out.skipped += one.skipped
    if not any(entry.role != "-" for entry in out.entries):
        raise DataError(f"{', '.join(files)} holds no model that fits a home; give another furniture file")
    return out


@lru_cache(maxsize=64)
def fingerprint(file: str) -> str:
    """SHA-256 of a catalogue: sets made from other files are other sets."""
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}); give a readable .sh3f file") from error
    return digest.hexdigest()
