"""A model, a process and a condition encoder working as one, with the training loop and its files."""
