"""Triangles with normals, texture coordinates and surfaces; and the plain shapes that homes are built of.

Frame of a mesh: metres, z up, the base at z = 0, centred on x = y = 0, its front towards -y.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Colour = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Texture:
    """A picture in all sizes, largest first: uint8 [h, w, 3], sRGB. `cut`: uint8 [h, w] of the first, 0 is a hole."""

    levels: tuple[NDArray[np.uint8], ...]
    cut: NDArray[np.uint8] | None = None

    @staticmethod
    def of(image: NDArray[np.uint8], cut: NDArray[np.uint8] | None = None) -> Texture:
        levels = [np.ascontiguousarray(image)]
        while min(levels[-1].shape[:2]) > 4:
            height, width = levels[-1].shape[:2]
            levels.append(
                cv2.resize(levels[-1], (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)
            )
        return Texture(tuple(levels), cut)


@dataclass(frozen=True)
class Surface:
    """Albedo (linear, 0..1) or a texture times it; highlight, own light, mirror."""

    colour: Colour = (0.7, 0.7, 0.7)
    texture: Texture | None = None
    gloss: float = 0.0
    glow: float = 0.0
    mirror: bool = False


@dataclass(frozen=True, eq=False)
class Mesh:
    """corners and normals float32 [T, 3, 3], uv float32 [T, 3, 2], surface int32 [T]: index into `surfaces`."""

    corners: Floats
    normals: Floats
    uv: Floats
    surface: NDArray[np.int32]
    surfaces: tuple[Surface, ...]

    @property
    def size(self) -> NDArray[np.float64]:
        flat = self.corners.reshape(-1, 3)
        return (flat.max(0) - flat.min(0)).astype(np.float64)

    @property
    def nbytes(self) -> int:
        return self.corners.nbytes + self.normals.nbytes + self.uv.nbytes + self.surface.nbytes

    def height_at(self, points: NDArray[np.float64], limit: float = np.inf) -> NDArray[np.float64]:
        """Highest z of the mesh at or below `limit` over points [P, 2]; -inf where there is none. float64 [P]."""
        c = self.corners[self.corners[:, :, 2].min(1) <= limit + 1e-3]
        lo, hi = c[:, :, :2].min(1), c[:, :, :2].max(1)
        out = np.full(len(points), -np.inf)
        for i, (x, y) in enumerate(points):
            t = c[(lo[:, 0] <= x) & (hi[:, 0] >= x) & (lo[:, 1] <= y) & (hi[:, 1] >= y)].astype(np.float64)
            if not len(t):
                continue
            a, b, d = t[:, 0], t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]
            area = b[:, 0] * d[:, 1] - b[:, 1] * d[:, 0]
            ok = np.abs(area) > 1e-12
            a, b, d, area = a[ok], b[ok], d[ok], area[ok]
            u = ((x - a[:, 0]) * d[:, 1] - (y - a[:, 1]) * d[:, 0]) / area
            v = (b[:, 0] * (y - a[:, 1]) - b[:, 1] * (x - a[:, 0])) / area
            hit = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6)
            z = (a[:, 2] + u * b[:, 2] + v * d[:, 2])[hit]
            z = z[z <= limit + 1e-3]
            if len(z):
                out[i] = z.max()
        return out


def scaled(colour: Colour, by: float) -> Colour:
    """A darker or lighter colour."""
    return by * colour[0], by * colour[1], by * colour[2]


def face_normals(corners: Floats) -> Floats:
    """Unit normals of triangles float32 [T, 3, 3]; zero for one without area. float32 [T, 3]."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    length = np.sqrt((normal * normal).sum(1, keepdims=True))
    return (normal / np.maximum(length, 1e-20)).astype(np.float32)


_BITS = np.arange(8)[:, None] >> np.arange(3) & 1
_SIDES = {
    "f": (0, 1, 5, 4),
    "b": (3, 2, 6, 7),
    "l": (2, 0, 4, 6),
    "r": (1, 3, 7, 5),
    "u": (4, 5, 7, 6),
    "d": (2, 3, 1, 0),
}


@dataclass
class Maker:
    """Collects quads and sheets into one mesh."""

    parts: list[tuple[Floats, Floats, Floats, int]] = field(default_factory=list)
    surfaces: list[Surface] = field(default_factory=list)

    def _surface(self, surface: Surface) -> int:
        for i, have in enumerate(self.surfaces):
            if have is surface:
                return i
        self.surfaces.append(surface)
        return len(self.surfaces) - 1

    def add(self, corners: Floats, surface: Surface, uv: Floats, normals: Floats | None = None) -> None:
        """Triangles float32 [T, 3, 3] with texture coordinates [T, 3, 2]; flat normals if none are given."""
        if normals is None:
            normals = np.repeat(face_normals(corners)[:, None], 3, 1)
        self.parts.append((corners.astype(np.float32), normals, uv.astype(np.float32), self._surface(surface)))

    def quad(self, a: Colour, b: Colour, c: Colour, d: Colour, surface: Surface, repeat: float = 0.0) -> None:
        """A rectangle a b c d. Texture coordinates are metres times `repeat`, or 0..1 over it where repeat is 0."""
        p = np.array([a, b, c, d], np.float32)
        wide, high = (np.linalg.norm(p[1] - p[0]), np.linalg.norm(p[3] - p[0])) if repeat else (1.0, 1.0)
        scale = repeat or 1.0
        t = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32) * np.float32(scale)
        index = np.array([[0, 1, 2], [0, 2, 3]])
        self.add(p[index], surface, t[index])

    def box(self, low: Colour, high: Colour, surface: Surface, repeat: float = 1.0, skip: str = "") -> None:
        """A box between two corners; `skip` names sides to leave out: l r f b d u."""
        # corner k has x, y, z of `high` where bits 0, 1, 2 of k are set
        ends = np.array([low, high], np.float32)
        points = ends[_BITS, [0, 1, 2]]
        quads = np.array([quad for side, quad in _SIDES.items() if side not in skip])
        p = points[quads]  # [sides, 4, 3]
        # an edge is along one axis: its length is the sum of its parts
        wide, tall = np.abs(p[:, 1] - p[:, 0]).sum(1), np.abs(p[:, 3] - p[:, 0]).sum(1)
        uv = np.zeros((len(p), 4, 2), np.float32)
        uv[:, 1, 0] = uv[:, 2, 0] = wide
        uv[:, 2, 1] = uv[:, 3, 1] = tall
        index = [0, 1, 2, 0, 2, 3]
        self.add(p[:, index].reshape(-1, 3, 3), surface, (uv * np.float32(repeat))[:, index].reshape(-1, 3, 2))

    def sheet(self, grid: NDArray[np.float64], surface: Surface, repeat: tuple[float, float] = (1.0, 1.0)) -> None:
        """A smooth sheet through a grid of points [A, B, 3]; texture coordinates 0..repeat over it."""
        du, dv = np.gradient(grid, axis=1), np.gradient(grid, axis=0)
        normal = np.cross(du, dv)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-12
        rows, columns = grid.shape[:2]
        uv = np.stack(np.meshgrid(np.linspace(0, repeat[0], columns), np.linspace(0, repeat[1], rows)), -1)
        i = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
        index = np.stack([i, i + 1, i + columns + 1, i, i + columns + 1, i + columns], 1).reshape(-1, 3)
        flat = [a.reshape(-1, a.shape[-1])[index].astype(np.float32) for a in (grid, normal, uv)]
        self.add(flat[0], surface, flat[2], flat[1])

    def mesh(self) -> Mesh:
        """All that was added, as one mesh."""
        return Mesh(
            np.concatenate([p[0] for p in self.parts]),
            np.concatenate([p[1] for p in self.parts]),
            np.concatenate([p[2] for p in self.parts]),
            np.concatenate([np.full(len(p[0]), p[3], np.int32) for p in self.parts]),
            tuple(self.surfaces),
        )


@lru_cache(maxsize=4)
def _ball(count: int) -> NDArray[np.float64]:
    """Directions on a grid over a sphere [count, 2 count + 1, 3]."""
    up = np.linspace(-np.pi / 2, np.pi / 2, count)[:, None]
    turn = np.linspace(0, 2 * np.pi, 2 * count + 1)[None]
    return np.stack([np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up) + 0 * turn], -1)


def cushion(width: float, depth: float, height: float, surface: Surface) -> Mesh:
    """A soft box on the floor: for pillows, cushions and folded cloth."""
    d = _ball(12)
    flat = np.sign(d) * np.abs(d) ** np.array([0.45, 0.45, 1.0])
    # corners stay thin: a pillow is thick in its middle
    thin = 1 - 0.55 * np.clip(np.maximum(np.abs(flat[..., 0]), np.abs(flat[..., 1])), 0, 1) ** 4
    flat[..., 2] *= thin
    grid = flat * [width / 2, depth / 2, height / 2] + [0, 0, height / 2]
    maker = Maker()
    maker.sheet(grid, surface, (2.0, 1.0))
    return maker.mesh()
