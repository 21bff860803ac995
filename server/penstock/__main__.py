"""The `penstock` command, also as `python -m penstock`."""

import os
import sys

__all__ = ["main"]

_EXIT_INTERRUPTED = 130


def main() -> None:
    """Runs the command line and exits; quiet when interrupted, even while it is imported."""
    _open_standard_streams()
    try:
        from penstock.commands import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)


def _open_standard_streams() -> None:
    """Opens /dev/null for those that are closed, as by `2>&-`.

    Else a socket gets the number 2, and what the core and gRPC log goes there.
    """
    if sys.stdin is None:  # the lowest free number is what open gives: in this order
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")


if __name__ == "__main__":
    main()
