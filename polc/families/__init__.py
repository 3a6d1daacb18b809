"""Codec families, one folder each."""
