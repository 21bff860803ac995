"""The command line: one thin file per command, and `_x.py` files for what they share.

`_cli.py` puts the commands together. Start-up counts for `serve`, so modules here import numpy,
rich and the client inside the functions that need them.

Exit codes, of every command: 0 done; 1 it failed, and stderr says why, one line per fault; 2 wrong
usage, settings of `serve` included; 130 interrupted.
"""

from penstock.commands._cli import main

__all__ = ["main"]
