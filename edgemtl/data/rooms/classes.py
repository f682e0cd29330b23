"""The thirteen classes of the synthetic rooms and the colour that each is drawn in.

This is the one place that names them: training copies both tuples into the model's task configuration, and from there
they travel in the bundle. A class's index is its position here; files store index + 1, because 0 means "no label".
"""

from __future__ import annotations

CLASSES: tuple[str, ...] = (
    "wall",
    "floor",
    "ceiling",
    "table",
    "chair",
    "shelf",
    "picture",
    "door",
    "lamp",
    "box",
    "ball",
    "cylinder",
    "cone",
)

PALETTE: tuple[tuple[int, int, int], ...] = (
    (174, 182, 191),  # wall: cool grey
    (133, 94, 66),  # floor: brown
    (235, 237, 240),  # ceiling: near white
    (230, 126, 34),  # table: orange
    (192, 57, 43),  # chair: red
    (125, 60, 152),  # shelf: purple
    (46, 204, 113),  # picture: green
    (20, 90, 50),  # door: dark green
    (241, 196, 15),  # lamp: yellow
    (52, 152, 219),  # box: blue
    (255, 105, 180),  # ball: pink
    (23, 32, 120),  # cylinder: navy
    (0, 210, 211),  # cone: cyan
)

INDEX: dict[str, int] = {name: i for i, name in enumerate(CLASSES)}
