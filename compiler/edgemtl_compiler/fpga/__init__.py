"""The FPGA path, from the graph to a frame on the accelerator's C simulation.

In order of travel: `limits` (what fits) → `quantise.calibrate` (ranges) → `quantise.fpga` (integers, node by node) →
`network` (the integers and a frame of them in NumPy: the specification) and `report` (its distance from float) →
`image`, `program` (what the device reads) → `csim` (the kernels of hls/, compiled by g++). `ops` has a file per op,
which all but `csim` ask.
"""
