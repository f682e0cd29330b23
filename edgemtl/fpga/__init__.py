"""The accelerator seen from the host, with NumPy alone: no torch, no pynq.

In order of travel: `program` (weight image and descriptor program, checked and read from a bundle), `registers` (the
kernel's control registers, from its argument list), `driver` (the frame loop), `virtual` (a board without a board) and
`simulation` (the kernels' C simulation behind it).
"""
