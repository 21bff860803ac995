"""What a GPU makes of Penstock: python -m bench.gpu --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu.cli import main  # noqa: E402

sys.exit(main())
