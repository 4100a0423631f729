"""The benchmarks are scripts, not packages: their folders are put on the path, as Python does for a script."""

import sys
from pathlib import Path

for folder in ("", "cpu", "data", "evidence", "gpu"):
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / folder))
