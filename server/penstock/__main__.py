"""The `penstock` command, also as `python -m penstock`."""

import sys

__all__ = ["main"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits; quiet when interrupted, even while it is imported."""
    try:
        from penstock.commands import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
