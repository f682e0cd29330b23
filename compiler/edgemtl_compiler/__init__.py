"""PyTorch model to programs: export, TVM, packed kernels, ONNX, and the bundle they go into."""
