"""The TensorRT backend and what it stands on."""
