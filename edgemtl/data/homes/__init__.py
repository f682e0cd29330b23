"""Homes from real furniture models: pictures with NYU's forty classes, for training before photographs.

In the order of the work: `catalogue` reads .sh3f files, `rules` says what each model is and where it stands, `model`
and `mesh` hold triangles, `patterns` paints surfaces, `shell`, `props`, `build` and `recipes` furnish a home, `trace`
finds hits, `view` chooses cameras, `light` and `render` make the picture, `write` the folder, `credits` the authors.
"""

from edgemtl.data.homes.classes import CLASSES, PALETTE

__all__ = ["CLASSES", "PALETTE"]
