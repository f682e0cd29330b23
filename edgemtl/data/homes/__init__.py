"""Homes from real furniture models: pictures with NYU's forty classes, for training before photographs.

In the order of the work: `catalogue` reads .sh3f files, `rules` says what each model is and where it stands, `model`
and `mtl` read meshes and materials, `mesh` holds triangles, `paints` and `patterns` paint surfaces. `place` and
`build` know free floor, walls and table tops; `shell` and `windows` build rooms; `props`, `hangings` and `storage`
make what catalogues lack; `tables`, `living`, `bedroom`, `work`, `kitchen`, `bathroom` and `clutter` furnish, `home`
puts it together. `trace` finds hits, `view` chooses cameras, `light`, `render` and `develop` make the picture, `marks`
edges and boxes, `write` the folder, `credits` the list of authors.
"""

from edgemtl.data.homes.classes import CLASSES, PALETTE

__all__ = ["CLASSES", "PALETTE"]
