"""Data sets: containers, files, generation, merging, loaders."""
