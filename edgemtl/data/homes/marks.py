"""Labels of a view: occlusion edges, and boxes with the share of each instance that is visible."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.homes.classes import CLASSES
from edgemtl.data.homes.trace import World, dot
from edgemtl.data.homes.view import Eye

Floats = NDArray[np.float32]
BOX_POINTS = 48  # rays that tell which share of an instance is visible
SMALLEST_BOX = 12  # pixels


def edges(
    semseg: NDArray[np.uint8], instance: NDArray[np.int64], depth: Floats, normals: Floats, camera: Eye
) -> NDArray[np.uint8]:
    """Occlusion borders: a pixel whose right or lower neighbour is of another class or instance, or 12 % off in depth.

    A jump of depth counts where the neighbour also leaves the pixel's tangent plane. Borders between a wall and a wall
    are none, as in NYUD. Returns uint8 [H, W].
    """
    height, width = depth.shape
    step = 2 * np.tan(np.radians(camera.fov) / 2) / max(height, width)
    x = ((np.arange(width) + 0.5 - width / 2) * step).astype(np.float32)
    y = ((height / 2 - np.arange(height) - 0.5) * step).astype(np.float32)
    point = np.stack([x[None] * depth, y[:, None] * depth, -depth], -1)
    shell = np.isin(semseg, [CLASSES.index(name) for name in ("wall", "floor", "ceiling")])
    out = np.zeros(depth.shape, bool)
    whole = slice(None)
    for a, b in (
        ((slice(None, -1), whole), (slice(1, None), whole)),
        ((whole, slice(None, -1)), (whole, slice(1, None))),
    ):
        far, near = np.maximum(depth[a], depth[b]), np.minimum(depth[a], depth[b])
        gap = point[b] - point[a]
        off = np.minimum(np.abs(dot(gap, normals[a])), np.abs(dot(gap, normals[b])))
        jump = (far - near > 0.12 * near) & (off > 0.02 * near)
        other = (instance[a] != instance[b]) & ~(shell[a] & shell[b])
        out[a] |= (semseg[a] != semseg[b]) | other | jump
    return out.astype(np.uint8)


def boxes(world: World, camera: Eye, instance: NDArray[np.int64]) -> list[dict[str, object]]:
    """Per instance in sight: class, box of its visible pixels, and which share of what it would show is visible.

    The share counts rays to points spread over the instance: those that meet it first, inside the picture, of all
    that would meet it if it stood alone.
    """
    height, width = instance.shape
    shell = {CLASSES.index(name) for name in ("wall", "floor", "ceiling")}
    numbers, count = np.unique(instance, return_counts=True)
    chosen: list[tuple[int, int]] = []
    members: dict[int, list[int]] = {}
    for i, number in enumerate(world.instance):
        members.setdefault(int(number), []).append(i)
    for number, many in zip(numbers.tolist(), count.tolist(), strict=True):
        if number >= 0 and many >= SMALLEST_BOX and int(world.cls[members[number][0]]) not in shell:
            chosen.append(
                (
                    number,
                    max(
                        members[number], key=lambda i: int((world.owner == i).sum()) if len(members[number]) > 1 else 0
                    ),
                )
            )
    if not chosen:
        return []
    points = np.concatenate([world.points_on(item, BOX_POINTS) for _, item in chosen])
    eye = np.array(camera.eye, np.float32)
    axes = camera.axes()
    to = points - eye
    local = np.stack([dot(to, axes[k]) for k in range(3)], 1)
    ahead = -local[:, 2]
    step = 2 * np.tan(np.radians(camera.fov) / 2) / max(height, width)
    u = local[:, 0] / np.maximum(ahead, 1e-6) / step + width / 2
    v = height / 2 - local[:, 1] / np.maximum(ahead, 1e-6) / step
    framed = (ahead > 0.01) & (u >= 0) & (u < width) & (v >= 0) & (v < height)
    hit = world.instance[world.cast(eye, to).item]
    own = (hit == np.repeat([number for number, _ in chosen], BOX_POINTS)) & framed
    share = own.reshape(-1, BOX_POINTS).mean(1)
    out: list[dict[str, object]] = []
    for (number, item), visible in zip(chosen, share.tolist(), strict=True):
        rows, columns = np.nonzero(instance == number)
        box = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        cls = CLASSES[int(world.cls[item])]
        out.append({"class": cls, "box": box, "visible": round(max(visible, 0.5 / BOX_POINTS), 3), "instance": number})
    return out
