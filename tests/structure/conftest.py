"""The helpers are found by path, so that it works whether or not tests/ is a package."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
