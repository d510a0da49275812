"""Combines a backbone, a diffusion process and condition encoders into a pipeline; trains and saves it."""
