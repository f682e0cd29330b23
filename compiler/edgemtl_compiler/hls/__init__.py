"""The FPGA path, from a float model to a frame on the accelerator's C simulation.

In order of travel: `limits` (what fits) → `edgemtl_compiler.calibrate` (ranges) → `factors`, `quantise` (integer
network) → `reference` (the network in NumPy: the specification) and `report` (its distance from float) → `image`,
`program` (what the device reads) → `csim` (the kernels of hls/, compiled by g++).
"""
