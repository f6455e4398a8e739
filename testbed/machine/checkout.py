"""Where the files of the project are that are no Python modules: templates, topologies. Decides nothing."""

from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
"""The folder that holds `testbed/`."""

CODE: Final = PROJECT / "testbed"
TEMPLATES: Final = PROJECT / "templates"
TOPOLOGIES: Final = PROJECT / "topologies"
