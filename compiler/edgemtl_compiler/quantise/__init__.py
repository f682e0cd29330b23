"""INT8 for CPUs and the accelerator.

A float network's ranges (`calibrate`) are measured on `pictures` or stored beside the weights (`ranges`). By them `cpu`
chooses codes for the CPU's kernels, whose arithmetic is `fake_int8`; `fpga` with `factors` makes the accelerator's
integers. `accuracy` says what INT8 costs each task; `job` is INT8's part of a compilation.
"""
