"""Turns a catalogue's model, Wavefront OBJ with MTL and pictures, into a `Mesh` in metres.

A model with too many triangles is simplified: corners are snapped to a grid that gets coarser until few enough are
left. A process keeps the models it used last, up to a number of bytes.
"""

from __future__ import annotations

import posixpath
import zipfile
from collections import OrderedDict
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.catalogue import MAX_MODEL, Entry, open_zip, read_member
from edgemtl.data.homes.mesh import Floats, Mesh, face_normals
from edgemtl.data.homes.mtl import read_mtl, read_surface
from edgemtl.errors import DataError

MAX_TRIANGLES = 600_000  # in a file
KEPT_TRIANGLES = 9_000  # in a home
CACHE_BYTES = 450 << 20


@lru_cache(maxsize=16)
def _archive(file: str) -> zipfile.ZipFile:
    return open_zip(Path(file))


class Models:
    """Meshes of entries, read when first asked for."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit, self._held = limit, 0
        self._meshes: OrderedDict[tuple[object, ...], Mesh | None] = OrderedDict()
        self.skipped: dict[str, str] = {}

    def get(self, entry: Entry) -> Mesh | None:
        """The mesh, or None for a model that cannot be read; `skipped` then says why."""
        key = (entry.file, entry.path, entry.id, entry.size, entry.turn)
        if key in self._meshes:
            self._meshes.move_to_end(key)
            return self._meshes[key]
        try:
            mesh: Mesh | None = read_model(_archive(entry.file), entry)
        except DataError as error:
            mesh, self.skipped[entry.id] = None, str(error)
        self._meshes[key] = mesh
        self._held += _bytes(mesh)
        while self._held > self._limit and len(self._meshes) > 1:
            self._held -= _bytes(self._meshes.popitem(last=False)[1])
        return mesh


def _bytes(mesh: Mesh | None) -> int:
    if mesh is None:
        return 0
    levels = [level.nbytes for s in mesh.surfaces if s.texture for level in s.texture.levels]
    return mesh.nbytes + sum(levels)


def read_model(archive: zipfile.ZipFile, entry: Entry) -> Mesh:
    """Raises DataError for a model without faces, with a missing MTL or texture, or with numbers that make no sense."""
    data = read_member(archive, entry.path, MAX_MODEL)
    base = posixpath.dirname(entry.path)
    points, uvs, normals, faces, names, libraries = _parse_obj(data, entry.path)
    if not len(faces):
        raise DataError(f"the model {entry.id} has no faces")
    materials: dict[str, dict[str, str]] = {}
    for library in libraries:
        materials.update(read_mtl(archive, base, library))
    p = _in_metres(points, entry)
    in_use = set(faces[:, 9].tolist())
    # a material that no face uses may name a picture that is not there; one that no MTL defines is plain grey
    surfaces = [read_surface(archive, base, materials.get(n, {})) if i in in_use else None for i, n in enumerate(names)]
    shown = np.array([s is not None for s in surfaces])[faces[:, 9]]
    faces = faces[shown]
    corners = p[faces[:, 0:3]].astype(np.float32)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    faces, corners = faces[area > 1e-10], corners[area > 1e-10]
    if not len(faces):
        raise DataError(f"the model {entry.id} has no faces that can be seen")
    faces, corners = _simplify(faces, corners)
    flat = face_normals(corners)
    n = _corner_normals(normals, faces, flat, entry)
    t = uvs[np.where(faces[:, 3:6] < len(uvs), faces[:, 3:6], 0)]
    used, index = np.unique(faces[:, 9], return_inverse=True)
    kept = tuple(s for s in (surfaces[k] for k in used) if s is not None)
    return Mesh(corners, n, t, index.astype(np.int32), kept)


def _parse_obj(
    data: bytes, path: str
) -> tuple[NDArray[np.float64], Floats, Floats, NDArray[np.int64], list[str], list[str]]:
    """Points, uv, normals; faces [T, 10]: three points, three uv, three normals, a material; names; MTL files."""
    points: list[bytes] = []
    uvs: list[bytes] = []
    normals: list[bytes] = []
    faces: list[tuple[int, ...]] = []
    names: list[str] = []
    known: dict[str, int] = {}
    libraries: list[str] = []
    current = -1
    try:
        for line in data.split(b"\n"):
            start = line[:2]
            if start in (b"v ", b"v\t"):
                points.append(b" ".join(line.split()[1:4]))
            elif start == b"vt":
                uvs.append(b" ".join(line.split()[1:3]))
            elif start == b"vn":
                normals.append(b" ".join(line.split()[1:4]))
            elif start in (b"f ", b"f\t"):
                if current < 0:
                    current = known.setdefault("", len(names))
                    names.append("")
                corners = [_corner(word, len(points), len(uvs), len(normals)) for word in line.split()[1:]]
                a = corners[0]
                for b, c in pairwise(corners[1:]):
                    faces.append((a[0], b[0], c[0], a[1], b[1], c[1], a[2], b[2], c[2], current))
                if len(faces) > MAX_TRIANGLES:
                    raise DataError(f"{path} has more than {MAX_TRIANGLES} triangles")
            elif start == b"us":
                name = line[6:].decode("latin-1").strip()
                if name not in known:
                    known[name] = len(names)
                    names.append(name)
                current = known[name]
            elif line[:6] == b"mtllib":
                libraries.append(line[6:].decode("latin-1").strip())
        p = _numbers(points, 3)
        t = np.concatenate([np.zeros((1, 2)), _numbers(uvs, 2, strict=False)]).astype(np.float32)
        n = np.concatenate([np.zeros((1, 3)), _numbers(normals, 3, strict=False)]).astype(np.float32)
    except (ValueError, IndexError, OverflowError) as error:
        raise DataError(f"{path} is no OBJ file that can be read ({error})") from error
    f = np.array(faces, np.int64).reshape(-1, 10)
    if len(f) and (f[:, :3].min() < 0 or f[:, :3].max() >= len(p)):
        raise DataError(f"{path} has a face with a point that is not there")
    f[:, 3:6] = np.where((f[:, 3:6] < 0) | (f[:, 3:6] >= len(t)), 0, f[:, 3:6])
    f[:, 6:9] = np.where((f[:, 6:9] < 0) | (f[:, 6:9] >= len(n)), 0, f[:, 6:9])
    return p, t, n, f, names, libraries


def _corner(word: bytes, points: int, uvs: int, normals: int) -> tuple[int, int, int]:
    """ "7/2/5" to indices; uv and normal 0 mean none, points count from 0; negative ones count from the end."""
    parts = word.split(b"/")
    a = int(parts[0])
    b = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    c = int(parts[2]) if len(parts) > 2 and parts[2] else 0
    return (a - 1 if a > 0 else points + a, b if b >= 0 else uvs + 1 + b, c if c >= 0 else normals + 1 + c)


def _numbers(rows: list[bytes], width: int, strict: bool = True) -> NDArray[np.float64]:
    if not rows:
        return np.zeros((0, width))
    out = np.array(b" ".join(rows).split(), np.float64).reshape(len(rows), width)
    if not strict:  # a broken normal or texture coordinate spoils a spot, a broken point the model
        out[~np.isfinite(out) | (np.abs(out) > 1e9)] = 0
    if not np.isfinite(out).all() or np.abs(out).max() > 1e9:
        raise ValueError("a number is not finite or absurdly large")
    return out


def _in_metres(points: NDArray[np.float64], entry: Entry) -> NDArray[np.float64]:
    """The catalogue's turn, then each axis scaled to the catalogue's size; x right, y back, z up, base at 0."""
    p = points @ np.reshape(entry.turn, (3, 3)).T
    low, high = p.min(0), p.max(0)
    width, depth, height = entry.size
    p = (p - (low + high) / 2) / np.maximum(high - low, 1e-9) * [width, height, depth]
    return np.stack([p[:, 0], -p[:, 2], p[:, 1] + height / 2], 1)


def _simplify(faces: NDArray[np.int64], corners: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Snap corners to a grid, coarser and coarser, until at most KEPT_TRIANGLES are left."""
    cells = 160.0
    low = corners.reshape(-1, 3).min(0)
    extent = float((corners.reshape(-1, 3).max(0) - low).max())
    while len(corners) > KEPT_TRIANGLES and cells > 12:
        cell = extent / cells
        key = np.round((corners - low) / cell).astype(np.int64)
        code = (key[..., 0] * 4096 + key[..., 1]) * 4096 + key[..., 2]
        keep = (code[:, 0] != code[:, 1]) & (code[:, 1] != code[:, 2]) & (code[:, 0] != code[:, 2])
        # triangles that became the same one are kept once
        order = np.sort(code[keep], 1)
        _, first = np.unique(order, axis=0, return_index=True)
        chosen = np.flatnonzero(keep)[np.sort(first)]
        snapped = (low + key[chosen] * cell).astype(np.float32)
        flat = np.cross(snapped[:, 1] - snapped[:, 0], snapped[:, 2] - snapped[:, 0])
        good = (flat * flat).sum(1) > 1e-16
        if not good.any():
            break
        faces, corners = faces[chosen[good]], snapped[good]
        cells *= 0.75
    return faces, corners


def _corner_normals(normals: Floats, faces: NDArray[np.int64], flat: Floats, entry: Entry) -> Floats:
    """The file's normals where they agree with the triangles, else the triangles'."""
    out = np.repeat(flat[:, None], 3, 1)
    if len(normals) < 2:
        return out
    n = normals @ np.reshape(entry.turn, (3, 3)).T.astype(np.float32)
    n = np.stack([n[:, 0], -n[:, 2], n[:, 1]], 1)
    n = n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-9)
    theirs = n[faces[:, 6:9]].astype(np.float32)
    dot = (theirs * flat[:, None]).sum(-1)
    theirs = np.where(dot[..., None] < 0, -theirs, theirs)
    fits = (np.abs(dot).min(1) > 0.5) & (faces[:, 6:9].min(1) > 0)
    out[fits] = theirs[fits]
    return out
