"""Records of training runs: metrics, status, curves."""
