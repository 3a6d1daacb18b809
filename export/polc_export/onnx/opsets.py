"""Opsets of the default ONNX domain that graphs are written in; imports nothing, to start fast."""

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
"""What torch.onnx writes; from 20 on, GELU is one node."""
