"""The extra `llava`: clear errors without it, and the repository's folder `datasets/` beside Hugging Face's package."""

import os
import subprocess
import sys

import pytest

from tests.paths import ROOT


@pytest.fixture
def extra():
    """Skips a test without the extra; as a fixture, so that the report has one line for all."""
    pytest.importorskip("transformers", reason="needs denserc[llava]")


def run(code, *, cwd=ROOT):
    """Python from the repository's root, whose folder is first on its path, as `python script.py` has it."""
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


def hidden(*names):
    """Code that makes `find_spec` and imports answer as if packages were absent, but for folders of that name."""
    return f"""
import importlib.machinery, importlib.util, sys
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    spec = real(name, path, target)
    return None if spec is not None and spec.origin and name.partition(".")[0] in {names!r} else spec
def folder_or_none(name, path=None, target=None):
    found = find_spec(name, path, target)
    if found is None and name == "datasets":
        found = real(name, [{str(ROOT)!r}], target)
    return found
importlib.machinery.PathFinder.find_spec = staticmethod(folder_or_none)
"""


def test_without_transformers_the_extra_is_named():
    done = run(hidden("transformers") + "\nimport denserc\nimport denserc.mllm")
    assert done.returncode == 1
    assert "ConfigurationError: " in done.stderr and "pip install 'denserc[llava]'" in done.stderr


def test_the_core_works_without_transformers():
    """open_clip imports it where it is installed, so its absence is the test."""
    code = "import denserc.config, denserc.detection, denserc.segmentation, denserc.commands.export_llava as command\n"
    done = run(hidden("transformers") + code + "assert command.parser()")
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("extra")
def test_the_folder_datasets_does_not_hide_the_package():
    """From the root of the repository, where `datasets/` is the first folder of that name on the path."""
    assert (ROOT / "datasets").is_dir() and not (ROOT / "datasets" / "__init__.py").exists()
    code = f"import sys; assert sys.path[0] in ('', {str(ROOT)!r})\n"
    code += "from denserc.mllm import require_training_packages\nrequire_training_packages()\n"
    code += "import datasets, transformers\nassert datasets.Dataset and transformers.Trainer\n"
    done = run(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("extra")
def test_without_the_package_the_folder_is_named():
    code = "from denserc.mllm import require_training_packages\nrequire_training_packages()"
    done = run(hidden("datasets") + code)
    assert done.returncode == 1 and "AttributeError" not in done.stderr
    assert f"needs the package datasets, which is absent ({ROOT / 'datasets'} is a folder of that name)" in done.stderr
    assert "pip install 'denserc[llava]'" in done.stderr


@pytest.mark.usefixtures("extra")
def test_an_unsupported_version_is_named(monkeypatch):
    from denserc.mllm import requirements
    from denserc.structures import ConfigurationError

    for version in ("4.57.1", "5.19.2", "6.0.0"):
        monkeypatch.setattr(requirements.metadata, "version", lambda name, version=version: version)
        with pytest.raises(
            ConfigurationError, match=f"transformers {version} is installed.*at least 5.20 and less than 6"
        ):
            requirements.require_transformers()
    monkeypatch.setattr(requirements.metadata, "version", lambda name: "5.31.0.dev0")
    requirements.require_transformers()
