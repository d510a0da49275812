"""Data sets: containers, files, generation, merging and loaders, between `tasks` and training."""
