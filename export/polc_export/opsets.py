"""Opsets of the default ONNX domain that graphs are written in; imports nothing, so the command starts fast."""

DEFAULT_OPSET = 20
OPSETS = range(18, 24)
"""What torch.onnx writes; from 20 on, GELU is one node."""
