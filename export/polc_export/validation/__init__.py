"""Checks that an export equals the PyTorch model."""
