"""Data sets: the rooms generator, and one loader for every known folder layout (`layout`, `dataset`, `check`)."""
