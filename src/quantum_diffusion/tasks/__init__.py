"""Tasks: what circuits are asked for, and everything that depends on it."""
