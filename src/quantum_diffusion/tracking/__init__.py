"""Where metrics of a run go."""
