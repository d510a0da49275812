"""Circuits as data: gates, tokens, random generation, simplification, labels. Never imports torch."""
