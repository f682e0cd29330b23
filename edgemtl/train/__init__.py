"""Training and evaluation: recipe, losses, loop, task paths, metrics. Needs the `train` extra."""
