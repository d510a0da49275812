"""Circuits as data: gates, tokens, random generation, simplification and labels.

The lowest layer: data sets, tasks, diffusion and search build on it. It never imports torch.
"""
