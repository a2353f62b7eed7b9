"""Folders that tests read from.

DATA holds recordings and data sets that are too large for the repository. It is the folder named by the environment
variable DENSERC_TEST_DATA, by default `shared` beside the repository. Tests that need it are skipped without it.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
FIXTURES = ROOT / "tests" / "fixtures"
DATA = Path(os.environ.get("DENSERC_TEST_DATA") or ROOT.parent / "shared").resolve()
