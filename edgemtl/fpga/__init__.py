"""The accelerator seen from the host, with NumPy alone: no torch; pynq in `pynq_driver` and `remote` only.

In order of travel: `program` (weight image and descriptor program, checked and read from a bundle), `registers` (the
kernel's control registers, from its argument list), `bitstream` and `handoff` (a build's files, checked), `driver` (the
frame loop), `pynq_driver` (its board through pynq), `virtual` (a board without a board), `simulation` (the kernels' C
simulation behind it), `virtual_files` and `remote` (the virtual board for stock pynq). For a board's owner: `deploy`,
`model_folder`, `board_test`, `check`.
"""
