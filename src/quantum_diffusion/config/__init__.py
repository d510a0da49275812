"""The typed configuration and its bridge to Hydra."""

import sys

if sys.flags.optimize:
    from quantum_diffusion.config.asserting import keep_asserts

    keep_asserts()
