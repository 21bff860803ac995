"""Penstock beside its peers: python -m bench.peers --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from peers.cli import main  # noqa: E402

main()
