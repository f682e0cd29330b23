"""Depth for any camera: from the field of view that a model learnt depth for to the camera's own.

A picture alone does not tell a near small thing from a far large one; the focal length decides. So training scales
every label to one canonical camera, and the engine scales back (as Metric3D does, Yin et al., ICCV 2023).
"""

from __future__ import annotations

import math
from numbers import Real

from edgemtl.config import ModelConfig
from edgemtl.errors import EdgeMTLError


def zoom(model: ModelConfig, fov: float) -> float:
    """The camera's focal length over the canonical one, both in widths of the picture; `fov`: horizontal degrees.

    Raises EdgeMTLError for an angle that cannot be, or a model whose depth is tied to no camera.
    """
    if isinstance(fov, bool) or not isinstance(fov, Real) or not 1 < fov < 179:  # NumPy's numbers are Real, too
        given = repr(fov)[:40]
        raise EdgeMTLError(f"fov is {given}; give the camera's horizontal field of view in degrees, from 1 to 179")
    if model.fov is None:
        raise EdgeMTLError(
            f"fov was given, but depth of the model {model.name!r} was learnt for no one camera: leave fov out"
        )
    return math.tan(math.radians(model.fov) / 2) / math.tan(math.radians(fov) / 2)
