"""Sampling at volume, verification by simulation, figures and reports."""
