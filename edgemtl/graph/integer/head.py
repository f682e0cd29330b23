"""The light head's own units: depthwise 3x3 steps and the narrowing before the last product, in tile order.

The projection leaves each token a tile of t x t pixels. Pixels stay in that order (token by token, row by row within
the tile) in memory: pixel shuffle is addressing, not movement. Only the last product reads them in raster order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import BIAS_LIMIT, scaled_int8, scaled_int16
from edgemtl.graph.integer.params import Depthwise, Scaling


def tile_order(rows: int, cols: int, tile: int) -> NDArray[np.int64]:
    """For every pixel in raster order [rows · tile, cols · tile], its place in tile order."""
    y, x = np.mgrid[: rows * tile, : cols * tile]
    token = (y // tile) * cols + x // tile
    place: NDArray[np.int64] = ((token * tile + y % tile) * tile + x % tile).astype(np.int64)
    return place


def raster(values: NDArray[np.int16], rows: int, cols: int, tile: int) -> NDArray[np.int16]:
    """Pixels in tile order [P, C] as an image [rows · tile, cols · tile, C]."""
    return values[tile_order(rows, cols, tile)]


def depthwise(stream: NDArray[np.int16], params: Depthwise, rows: int, cols: int, tile: int) -> NDArray[np.int16]:
    """3x3 depthwise product of the head's stream [P, C] (tile order), zeros outside; scaled to INT16 [P, C]."""
    order = tile_order(rows, cols, tile)
    image = np.pad(stream[order].astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    height, width = order.shape
    bias = np.clip(params.bias, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int64)
    total = np.broadcast_to(bias, (height, width, len(bias)))
    for tap, weight in enumerate(params.weight.astype(np.int64)):
        dy, dx = divmod(tap, 3)
        total = total + image[dy : dy + height, dx : dx + width] * weight
    out = np.empty_like(stream)
    out[order] = scaled_int16(total, params.multiplier, params.shift)
    return out


def narrow(stream: NDArray[np.int16], scaling: Scaling) -> NDArray[np.int8]:
    """INT16 [P, C] plus a bias per channel, scaled to INT8."""
    bias = np.clip(scaling.bias, -BIAS_LIMIT, BIAS_LIMIT)
    return scaled_int8(stream.astype(np.int64) + bias, scaling.multiplier, scaling.shift)
