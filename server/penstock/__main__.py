"""The `penstock` command, also as `python -m penstock`."""

from penstock.commands import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
