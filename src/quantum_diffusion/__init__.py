"""Diffusion models that write quantum circuits: data, training, verified sampling, evaluation.

Importing the package has no side effects and loads nothing heavy; see docs/architecture.md for the map.
"""

__version__ = "0.1.0"
