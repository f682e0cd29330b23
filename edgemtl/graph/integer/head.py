"""The light head's own units: depthwise 3x3 steps and the narrowing before the last product.

In the accelerator's memory the pixels stay in tile order, as the projection left them: pixel shuffle is addressing
there, not movement (`tile_order` in tests/hls). Sums are exact, so the order does not matter here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgemtl.graph.integer.fixed import BIAS_LIMIT, scaled_int8, scaled_int16
from edgemtl.graph.integer.params import Depthwise, Scaling


def depthwise(image: NDArray[np.int16], params: Depthwise) -> NDArray[np.int16]:
    """3x3 depthwise product of the head's stream [H, W, C], zeros outside; scaled to INT16."""
    height, width, _ = image.shape
    wide = np.pad(image.astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    bias = np.clip(params.bias, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int64)
    total = np.broadcast_to(bias, image.shape)
    for tap, weight in enumerate(params.weight.astype(np.int64)):
        dy, dx = divmod(tap, 3)
        total = total + wide[dy : dy + height, dx : dx + width] * weight
    return scaled_int16(total, params.multiplier, params.shift)


def narrow(stream: NDArray[np.int16], scaling: Scaling) -> NDArray[np.int8]:
    """INT16 [..., C] plus a bias per channel, scaled to INT8."""
    bias = np.clip(scaling.bias, -BIAS_LIMIT, BIAS_LIMIT)
    return scaled_int8(stream.astype(np.int64) + bias, scaling.multiplier, scaling.shift)
