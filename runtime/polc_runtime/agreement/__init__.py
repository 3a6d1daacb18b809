"""How far apart several ways to run one model are, and which files that costs."""

from .measure import Agreement, agreement

__all__ = ["Agreement", "agreement"]
