"""Ranges, codes and factors of INT8, for CPUs and the accelerator; what INT8 costs each task."""
