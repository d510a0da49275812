"""Diffusion processes: each owns its noise, its loss and its sampling loop over a callable."""
