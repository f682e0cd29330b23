"""The accelerator seen from the host, with NumPy alone: no torch; pynq in `pynq_driver` only.

In order of travel: `board` (the boards' facts), `contract` (what host and kernels agree on), `program` (weight image
and descriptor program, checked and read from a bundle), `registers` (the kernel's control registers, from its
arguments), `bitstream` and `handoff` (a build's files, checked), `driver` (the frame loop), `counters` (what a frame
took), `pynq_driver` (its board through pynq), `virtual` (a board without a board), `simulation` (the kernels' C
simulation behind it). For a board's owner: `deploy`, `model_folder`, `board_test`, `check`.
"""
