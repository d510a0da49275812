"""Searches that sample a model until enough circuits are verified by simulation; the commands use them."""
