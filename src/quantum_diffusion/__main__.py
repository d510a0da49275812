"""`python -m quantum_diffusion` is `quantum-diffusion`."""

from quantum_diffusion.cli import main

if __name__ == "__main__":
    main()
