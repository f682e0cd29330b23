"""Running a bundle: the engine, what it maps and keeps resident, backends, and what becomes of their output."""
