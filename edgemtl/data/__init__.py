"""Data sets: the rooms generator and the loader of the NYUD_MT folder layout."""
