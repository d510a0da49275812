"""The typed configuration and its bridge to Hydra."""
