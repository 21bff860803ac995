"""What a GPU makes of Penstock: python -m bench.gpu --help."""

import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.cli import main  # noqa: E402

# A step that is ended so keeps what it has found, and leaves no program behind.
signal.signal(signal.SIGTERM, signal.default_int_handler)
sys.exit(main())
