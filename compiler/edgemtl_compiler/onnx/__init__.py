"""One ONNX file per task, for ONNX Runtime and other readers."""
