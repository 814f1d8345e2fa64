"""notebooks/ is a folder of scripts and no package: this makes them importable."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks"))
