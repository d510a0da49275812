"""Evaluation of models and data sets: sampling, verification by simulation, figures and reports."""
