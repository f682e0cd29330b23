"""The FPGA path, from a float model to a frame on the accelerator's C simulation.

In order of travel: `limits` (what fits) → `quantise.calibrate` (ranges) → `quantise.factors`, `quantise.fpga` (integer
network) → `reference` (the network in NumPy: the specification) and `report` (its distance from float) → `image`,
`program` (what the device reads) → `csim` (the kernels of hls/, compiled by g++).
"""
