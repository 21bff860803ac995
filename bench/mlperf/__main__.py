"""MLPerf Inference's LoadGen against Penstock: python -m bench.mlperf --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mlperf.cli import main  # noqa: E402

main()
