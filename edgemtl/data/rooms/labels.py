"""Labels from geometry: edges, and the filter weights that tell which neighbouring pixels share a surface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DEPTH_JUMP = 0.08  # relative difference of planar depth between neighbours
CREASE = 0.7  # cosine between neighbouring normals below which a fold is an edge


def _pair_is_edge(
    instance: NDArray[np.integer],
    depth: Floats,
    normal: Floats,
    point: Floats,
    a: tuple[slice, ...],
    b: tuple[slice, ...],
) -> NDArray[np.bool_]:
    far, near = np.maximum(depth[a], depth[b]), np.minimum(depth[a], depth[b])
    fold = (normal[a] * normal[b]).sum(-1) < CREASE
    # a plane seen at a grazing angle also changes depth fast: a jump must leave both tangent planes
    gap = point[b] - point[a]
    off = np.minimum(np.abs((gap * normal[a]).sum(-1)), np.abs((gap * normal[b]).sum(-1)))
    jump = (far - near > DEPTH_JUMP * near) & (off > 0.01 * near)
    return np.asarray((instance[a] != instance[b]) | jump | fold)


def edges(instance: NDArray[np.integer], depth: Floats, normal: Floats, point: Floats) -> NDArray[np.uint8]:
    """Occlusion and crease edges, one pixel wide.

    instance: [H, W]; depth: float32 [H, W], metres; normal: float32 [H, W, 3], unit; point: float32 [H, W, 3], the
    surface point in the frame of the normals. A pixel is an edge (1) if it differs from its right or lower neighbour:
    another instance, a depth jump of more than 8 %, or normals with a dot product below 0.7. Pixels with no edge among
    their eight neighbours are dropped.
    """
    out = np.zeros(depth.shape, bool)
    everything = slice(None)
    for a, b in (
        ((slice(None, -1), everything), (slice(1, None), everything)),
        ((everything, slice(None, -1)), (everything, slice(1, None))),
    ):
        out[a] |= _pair_is_edge(instance, depth, normal, point, a, b)
    # rims thinner than a pixel are hit here and there: a lone pixel is not an edge
    padded = np.pad(out, 1).astype(np.uint8)
    around = sum(
        padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
    )
    return (out & (around > 1)).astype(np.uint8)


def smooth_on_surface(
    value: Floats,
    instance: NDArray[np.integer],
    depth: Floats,
    normal: Floats,
    point: Floats,
    period: int,
) -> Floats:
    """Average over a window of `period` pixels across, then down, without leaving a surface.

    value: float32 [H, W, C]. The window's two end taps count half, so that a sampling pattern that repeats with
    `period` is averaged over each of its members equally. A neighbour counts if it is of the same instance, its normal
    is close, and it lies on the pixel's tangent plane.
    """
    half = period // 2
    for axis in (0, 1):
        total = value.copy()
        weight = np.ones(depth.shape, np.float32)
        for offset in range(1, half + 1):
            tap = np.float32(0.5 if offset == half else 1.0)
            low = [slice(None), slice(None)]
            high = [slice(None), slice(None)]
            low[axis], high[axis] = slice(None, -offset), slice(offset, None)
            a, b = tuple(low), tuple(high)
            gap = point[b] - point[a]
            plane = np.abs((gap * normal[a]).sum(-1)) < 0.02 * depth[a]
            same = (instance[a] == instance[b]) & plane & ((normal[a] * normal[b]).sum(-1) > 0.9)
            share = tap * same.astype(np.float32)
            total[a] += share[..., None] * value[b]
            total[b] += share[..., None] * value[a]
            weight[a] += share
            weight[b] += share
        value = total / weight[..., None]
    return value
