"""Programs for NVIDIA GPUs, run through the driver alone: `driver` (libcuda.so.1), `plan` (what a program's file
says), `weights` (device memory that follows the active tasks), `frame` (a frame as one CUDA graph).
"""
