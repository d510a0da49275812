"""Training runs from a configuration, and the register of finished runs."""
