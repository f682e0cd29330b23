"""The FPGA path: integer reference of the kernels, and their C simulation."""
