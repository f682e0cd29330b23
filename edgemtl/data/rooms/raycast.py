"""Embree behind two calls: nearest hit and "is anything in between".

`embreex` gives exact hits at millions of rays per second on one core; it is imported when a `Caster` is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.rooms.materials import albedo, pack
from edgemtl.data.rooms.scene import Scene
from edgemtl.data.rooms.shapes import smooth_gradient, unit_mesh

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass
class Hits:
    """Nearest hits of N rays: index of the solid, of the triangle, and ray length in units of the direction."""

    solid: Ints
    triangle: Ints
    distance: Floats
    normal: Floats  # of the triangle, not normalised


def _dot(a: Floats, b: Floats) -> Floats:
    """Row by row, in a fixed order: BLAS may round differently with the number of threads."""
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


class Tree:
    """Triangles float32 [T, 3, 3] in a search tree."""

    def __init__(self, triangles: Floats) -> None:
        from embreex import rtcore_scene
        from embreex.mesh_construction import TriangleMesh

        self._tree: Any = rtcore_scene.EmbreeScene()
        self._mesh = TriangleMesh(self._tree, np.ascontiguousarray(triangles))

    def run(self, origin: Floats, direction: Floats) -> dict[str, Any]:
        """Nearest hits as embreex gives them; origin float32 [3] or [N, 3], direction float32 [N, 3]."""
        start = np.ascontiguousarray(np.broadcast_to(origin, direction.shape), np.float32)
        return dict(self._tree.run(start, np.ascontiguousarray(direction, np.float32), query="INTERSECT", output=True))

    def nearest(self, origin: Floats, direction: Floats) -> tuple[Ints, Floats, Floats]:
        """Triangle (-1: a miss), ray length and place in the triangle (weights of corners 1 and 2) of the nearest hits.

        Returns int32 [N], float32 [N], float32 [N, 2].
        """
        found = self.run(origin, direction)
        return found["primID"], found["tfar"], np.stack([found["u"], found["v"]], 1)

    def blocked(self, origin: Floats, direction: Floats, limit: Floats) -> NDArray[np.bool_]:
        """Whether anything lies on origin + t * direction for 0 < t < limit; all float32, [N, 3], [N, 3], [N]."""
        if not len(origin):
            return np.zeros(0, bool)
        out = self._tree.run(
            np.ascontiguousarray(origin, np.float32),
            np.ascontiguousarray(direction, np.float32),
            dists=np.ascontiguousarray(limit, np.float32),
            query="OCCLUDED",
        )
        return np.asarray(out == 0)


class Caster:
    """A scene's triangles in a search tree, with the per-solid tables that turn a hit into a surface."""

    def __init__(self, scene: Scene) -> None:
        triangles, owners, smooth = [], [], []
        for i, solid in enumerate(scene.solids):
            mesh, curved = unit_mesh(solid.shape)
            matrix = solid.matrix.astype(np.float32)
            # written out for the reason given at `_dot`
            world = sum(mesh[..., k, None] * matrix[:3, k] for k in range(3)) + matrix[:3, 3]
            triangles.append(world.astype(np.float32))
            owners.append(np.full(len(mesh), i, np.int32))
            smooth.append(curved)
        self._owner = np.concatenate(owners)
        self._smooth = np.concatenate(smooth)
        self._tree = Tree(np.concatenate(triangles))
        matrices = np.stack([s.matrix for s in scene.solids])
        self.inverse = np.linalg.inv(matrices)[:, :3].astype(np.float32)  # [S, 3, 4]
        self.scale = np.linalg.norm(matrices[:, :3, :3], axis=1).astype(np.float32)  # [S, 3]
        self.shape = np.array([s.shape for s in scene.solids], np.int64)
        self.cls = np.array([s.cls for s in scene.solids], np.int64)
        self.instance = np.array([s.instance for s in scene.solids], np.int64)
        self.materials = pack([s.material for s in scene.solids])

    def cast(self, origin: Floats, direction: Floats) -> Hits:
        """Nearest hits; origin float32 [3] or [N, 3], direction float32 [N, 3] of any length.

        The room is closed, so a miss can only be a ray through a numerical crack: it gets solid 0 (the floor) at 20.
        """
        found = self._tree.run(origin, direction)
        triangle, distance = found["primID"], found["tfar"]
        missed = triangle < 0
        if missed.any():
            triangle, distance = np.where(missed, 0, triangle), np.where(missed, np.float32(20), distance)
        return Hits(self._owner[triangle], triangle, distance, found["Ng"])

    def blocked(self, origin: Floats, direction: Floats, limit: Floats) -> NDArray[np.bool_]:
        """Whether anything lies on origin + t * direction for 0 < t < limit; all float32, [N, 3], [N, 3], [N]."""
        return self._tree.blocked(origin, direction, limit)

    def surface(self, hits: Hits, position: Floats, direction: Floats) -> tuple[Floats, Floats]:
        """Unit normals facing the ray's origin, and albedo, at hit positions; float32 [N, 3] each."""
        local = np.empty_like(position)
        inverse = self.inverse[hits.solid]
        for k in range(3):
            local[:, k] = _dot(inverse[:, k], position) + inverse[:, k, 3]
        normal = hits.normal.copy()
        at = np.flatnonzero(self._smooth[hits.triangle])
        if len(at):
            gradient = smooth_gradient(local[at], self.shape[hits.solid[at]])
            inv = inverse[at]
            for k in range(3):
                normal[at, k] = _dot(inv[:, :, k], gradient)
        normal /= np.sqrt((normal * normal).sum(1, keepdims=True)) + np.float32(1e-20)
        away = np.flatnonzero((normal * direction).sum(1) > 0)
        if len(away):
            # a flat face may be wound either way: flip; an exact normal at a facet's rim leans back a little: tilt
            n, d = normal[away], direction[away]
            tilted = n - d * ((n * d).sum(1, keepdims=True) / (d * d).sum(1, keepdims=True))
            tilted /= np.sqrt((tilted * tilted).sum(1, keepdims=True)) + np.float32(1e-20)
            normal[away] = np.where(self._smooth[hits.triangle[away]][:, None], tilted, -n)
        return normal, albedo(self.materials, hits.solid, local, self.scale[hits.solid])
