"""Tasks: the kinds of targets (Schmidt rank vectors, unitaries, states) and all code specific to one of them."""
