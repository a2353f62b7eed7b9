"""The GitHub workflow runs `.ci/run` on the Python versions that setup.cfg names."""

import configparser
import os
import re

import yaml

from tests.paths import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def test_the_workflow_runs_the_checks():
    assert set(WORKFLOW[True]) == {"push", "pull_request"}  # YAML 1.1 reads the key "on" as a truth value
    steps = WORKFLOW["jobs"]["checks"]["steps"]
    assert steps[-1]["run"] == ".ci/run" and os.access(ROOT / ".ci" / "run", os.X_OK)
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1].split()
    assert {match for step in steps for match in re.findall(r"make (\w+)", step.get("run", ""))} <= set(targets)


def test_the_workflow_has_the_python_versions_of_the_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r"Python :: (3\.\d+)", setup["metadata"]["classifiers"])
    assert WORKFLOW["jobs"]["checks"]["strategy"]["matrix"]["python"] == named
