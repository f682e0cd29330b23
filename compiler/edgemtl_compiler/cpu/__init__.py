"""Programs for CPUs: the graph as TVM Relax over this project's packed kernels (`kernels/`)."""
