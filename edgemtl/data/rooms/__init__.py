"""Seeded indoor rooms, ray-cast with exact labels: training and test data that need no download.

In the order of the work: `layout` furnishes a room from a seed (with `furniture`, `materials`, `shapes`, `scene`),
`raycast` finds hits, `camera` chooses views, `shade` and `render` make the picture, `labels` the edges, `write` the
NYUD_MT folder layout, `clip` a video with a moving camera. `classes` names the thirteen classes and their colours.
"""

from edgemtl.data.rooms.classes import CLASSES, PALETTE

__all__ = ["CLASSES", "PALETTE"]
