"""Translation between this package's names and layouts and those of other implementations."""
