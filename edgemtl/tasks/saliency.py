"""What stands out in the picture, as a probability."""

from __future__ import annotations

from edgemtl.tasks._binary import Binary


class Saliency(Binary):
    shows = "what stands out"
    words = "white: what stands out"


KIND = Saliency()
