"""Latency by stage, against what the machine could do."""
