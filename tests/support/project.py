"""Where the files are that tests read: by the project's folder, so that a test may stand in any folder of tests/."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
GOLDEN: Final = ROOT / "tests" / "golden"
"""Recorded texts, frames and results, and what has to be made of them."""
