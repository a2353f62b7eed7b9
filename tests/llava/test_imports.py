"""Reading a configuration needs no package of the extra, and training names the one that is absent."""

import subprocess
import sys

from tests.paths import ROOT

CODE = """
import sys
for name in ("transformers", "peft", "accelerate"):
    sys.modules[name] = None
from denserc.config import read_config
from denserc.llava import collator, conversations, engine, sampling, templates
from denserc.structures import ConfigurationError
try:
    engine.run(read_config("configs/llava15_7b_align.yaml"))
except ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_the_error_names_it():
    found = subprocess.run([sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "needs the package transformers: pip install 'denserc[llava]'" in found.stdout
