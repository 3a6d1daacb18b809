"""The PyTorch model as a backend of the runtime."""
