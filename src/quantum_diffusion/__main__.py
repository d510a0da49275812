"""Entry point of `quantum-diffusion` and `python -m quantum_diffusion`; it handles Ctrl-C even during imports."""

import sys


def main() -> None:
    """Run the command on the command line."""
    try:
        from quantum_diffusion import cli

        cli.main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
