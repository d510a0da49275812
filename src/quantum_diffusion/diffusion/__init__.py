"""Diffusion processes: each defines its noise, its loss and its sampling loop around a callable network."""
