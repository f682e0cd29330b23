"""A home's triangles in a search tree, and what a ray finds: class, instance, normal, albedo."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.mesh import Mesh
from edgemtl.data.rooms.raycast import Tree

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


def dot(a: Floats, b: Floats) -> Floats:
    """Sum of products over the last axis of length 3, written out: faster than a reduction, and in a fixed order."""
    return np.asarray(a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2])


_LINEAR = ((np.arange(256) / 255.0) ** 2.2).astype(np.float32)  # sRGB to linear light, near enough
FAR = np.float32(20.0)  # the length of a ray that meets nothing, metres
STEP = np.float32(1e-3)  # metres that a ray goes on behind a hole


@dataclass
class Item:
    """A mesh somewhere in a home. `matrix` float64 [4, 4] takes its frame to the home's; `tint` multiplies colours."""

    mesh: Mesh
    matrix: NDArray[np.float64]
    cls: int
    instance: int
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    model: str = ""


@dataclass
class Found:
    """Nearest hits of N rays: triangle, item, ray length, place in the triangle [N, 2]."""

    triangle: Ints
    item: Ints
    distance: Floats
    place: Floats


@dataclass
class Surfels:
    """What N hits look like: unit normals that face the ray, albedo, gloss, glow, mirror."""

    normal: Floats
    albedo: Floats
    gloss: Floats
    glow: Floats
    mirror: NDArray[np.bool_]


class World:
    """All items of a home, packed. Rays are float32 [N, 3], scaled so that a hit at length t lies at depth t."""

    def __init__(self, items: list[Item]) -> None:
        corners, owner = [], []
        for i, item in enumerate(items):
            matrix = item.matrix.astype(np.float32)
            c = item.mesh.corners
            # written out: BLAS may round differently with the number of threads
            world = sum(c[..., k, None] * matrix[:3, k] for k in range(3)) + matrix[:3, 3]
            corners.append(world.astype(np.float32))
            owner.append(np.full(len(c), i, np.int32))
        self.corners = np.ascontiguousarray(np.concatenate(corners))
        self.owner = np.concatenate(owner)
        self.cls = np.array([item.cls for item in items], np.int64)
        self.instance = np.array([item.instance for item in items], np.int64)
        self._normals = np.concatenate([item.mesh.normals for item in items])
        self._uv = np.concatenate([item.mesh.uv for item in items])
        # normals turn with the inverse transpose
        turns = [np.linalg.inv(item.matrix[:3, :3]).T for item in items]
        self._turn = np.stack(turns).astype(np.float32)
        self._pack_surfaces(items)
        self._tree = Tree(self.corners)

    def _pack_surfaces(self, items: list[Item]) -> None:
        texels: list[NDArray[np.uint8]] = []
        cuts: list[NDArray[np.uint8]] = []
        where: dict[int, list[tuple[int, int, int]]] = {}
        cut_at: dict[int, int] = {}
        used = cut_used = 0
        colour: list[NDArray[np.float64]] = []
        gloss, glow, mirror, tables, holes, index = [], [], [], [], [], []
        for item in items:
            index.append(item.mesh.surface + len(colour))
            for s in item.mesh.surfaces:
                colour.append(np.multiply(s.colour, item.tint))
                gloss.append(s.gloss)
                glow.append(s.glow)
                mirror.append(s.mirror)
                hole = -1
                table = [(0, 0, 0)]
                if s.texture is not None:
                    key = id(s.texture)
                    if key not in where:
                        where[key] = []
                        for level in s.texture.levels:
                            where[key].append((used, level.shape[0], level.shape[1]))
                            texels.append(level.reshape(-1, 3))
                            used += len(texels[-1])
                        if s.texture.cut is not None:
                            cut_at[key] = cut_used
                            cuts.append(s.texture.cut.ravel())
                            cut_used += cuts[-1].size
                    table, hole = where[key], cut_at.get(key, -1)
                tables.append([*table, *[table[-1]] * (8 - len(table))][:8])
                holes.append(hole)
        self._colour = np.array(colour, np.float32)
        self._gloss, self._glow = np.array(gloss, np.float32), np.array(glow, np.float32)
        self._mirror, self._hole = np.array(mirror, bool), np.array(holes, np.int64)
        self._table = np.array(tables, np.int64)  # [S, 8, 3]: start, height, width of each level
        self._texels = np.concatenate(texels) if texels else np.zeros((1, 3), np.uint8)
        self._cuts = np.concatenate(cuts) if cuts else np.ones(1, np.uint8)
        self._surface = np.concatenate(index)
        # texels per metre of the first level, for the choice of a level
        size = self._table[self._surface, 0, 1:]
        u = self._uv[:, 1:] - self._uv[:, :1]
        e = self.corners[:, 1:] - self.corners[:, :1]
        flat = np.abs(u[:, 0, 0] * u[:, 1, 1] - u[:, 0, 1] * u[:, 1, 0]) * size[:, 0] * size[:, 1]
        area = np.sqrt((np.cross(e[:, 0], e[:, 1]) ** 2).sum(1)) + 1e-12
        self._density = np.sqrt(flat / area).astype(np.float32)

    def cast(self, origin: Floats, direction: Floats) -> Found:
        """Nearest hits; holes in textures are looked through, twice at most. A miss is item 0 at length FAR."""
        triangle, distance, place = self._tree.nearest(origin, direction)
        if len(self._cuts) > 1:
            for _ in range(2):
                through = np.flatnonzero(self._open(triangle, place))
                if not len(through):
                    break
                start = (
                    np.broadcast_to(origin, direction.shape)[through]
                    + direction[through] * (distance[through] + STEP)[:, None]
                )
                t, d, p = self._tree.nearest(start.astype(np.float32), direction[through])
                triangle[through], place[through] = t, p
                distance[through] += d + STEP
        missed = triangle < 0
        if missed.any():
            triangle[missed], distance[missed], place[missed] = 0, FAR, 0.3
        return Found(triangle, self.owner[triangle], distance, place)

    def blocked(self, origin: Floats, direction: Floats, limit: Floats) -> NDArray[np.bool_]:
        """Whether anything lies between t = 0 and t = limit [N] of rays; holes in textures count as solid."""
        return self._tree.blocked(origin, direction, limit)

    def _open(self, triangle: Ints, place: Floats) -> NDArray[np.bool_]:
        out = np.zeros(len(triangle), bool)
        surface = self._surface[np.maximum(triangle, 0)]
        at = np.flatnonzero((self._hole[surface] >= 0) & (triangle >= 0))
        if len(at):
            uv = self._coordinates(triangle[at], place[at])
            start, (height, width) = self._hole[surface[at]], self._table[surface[at], 0, 1:].T
            y = (np.floor(-uv[:, 1] * height).astype(np.int64)) % height
            x = (np.floor(uv[:, 0] * width).astype(np.int64)) % width
            out[at] = self._cuts[start + y * width + x] == 0
        return out

    def _coordinates(self, triangle: Ints, place: Floats) -> Floats:
        c = self._uv[triangle]
        u, v = place[:, :1], place[:, 1:]
        return c[:, 0] * (1 - u - v) + c[:, 1] * u + c[:, 2] * v

    def look(self, found: Found, direction: Floats, pixel: float) -> Surfels:
        """Surfaces at hits. `pixel` is a pixel's side at depth 1, metres: it chooses the textures' level."""
        t = found.triangle
        u, v = found.place[:, :1], found.place[:, 1:]
        corner = self._normals[t]
        n = corner[:, 0] * (1 - u - v) + corner[:, 1] * u + corner[:, 2] * v
        rows = self._turn[found.item]
        n = np.stack([dot(rows[:, k], n) for k in range(3)], 1)
        length = np.sqrt(dot(n, n)) + np.float32(1e-20)
        n /= np.where(dot(n, direction) > 0, -length, length)[:, None]
        surface = self._surface[t]
        colour = self._colour[surface]
        textured = np.flatnonzero(self._table[surface, 0, 1] > 0)
        if len(textured):
            s, tri = surface[textured], t[textured]
            uv = self._coordinates(tri, found.place[textured])
            texels = self._density[tri] * found.distance[textured] * np.float32(pixel)
            level = np.clip(np.log2(np.maximum(texels, 1e-6)) + 0.2, 0, 7).astype(np.int64)
            start, height, width = self._table[s, level].T
            y = np.floor(-uv[:, 1] * height).astype(np.int64) % height
            x = np.floor(uv[:, 0] * width).astype(np.int64) % width
            colour[textured] *= _LINEAR[self._texels[start + y * width + x]]
        return Surfels(n.astype(np.float32), colour, self._gloss[surface], self._glow[surface], self._mirror[surface])

    def points_on(self, item: int, count: int) -> Floats:
        """Points spread over an item by area, the same ones each time; float32 [count, 3]."""
        low, high = np.searchsorted(self.owner, [item, item + 1])
        c = self.corners[low:high]
        area = np.sqrt((np.cross(c[:, 1] - c[:, 0], c[:, 2] - c[:, 0]) ** 2).sum(1)).astype(np.float64)
        steps = np.cumsum(area)
        at = np.searchsorted(steps, (np.arange(count) + 0.5) / count * steps[-1]).clip(0, len(c) - 1)
        turn = np.modf(np.arange(count)[:, None] * [0.7549, 0.5698] + 0.3)[0]
        fold = turn.sum(1) > 1
        turn[fold] = 1 - turn[fold]
        u, v = turn[:, :1], turn[:, 1:]
        return (c[at, 0] * (1 - u - v) + c[at, 1] * u + c[at, 2] * v).astype(np.float32)
