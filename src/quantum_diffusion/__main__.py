"""Where `quantum-diffusion` and `python -m quantum_diffusion` begin: a Ctrl-C counts from here on, imports included."""

import sys


def main() -> None:
    """Run the command that is asked for."""
    try:
        from quantum_diffusion import cli

        cli.main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
