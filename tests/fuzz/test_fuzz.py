"""Damaged input ends in success or in an error of ours: nothing else, for every kind of file.

`make fuzz N=10000` tries that many inputs per kind of file; without N the same few are drawn in every run.
"""

import os

import pytest
from hypothesis import HealthCheck, given, settings

from . import data_targets, model_targets  # noqa: F401, they register their targets
from .targets import TARGETS
from .worker import Worker
from .world import write

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.mark.parametrize("name", TARGETS)
def test_undamaged_content_is_read(name, tmp_path, forget_registered):
    write(tmp_path)
    TARGETS[name].run(tmp_path, TARGETS[name].valid)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_input_is_read_or_refused(name, tmp_path, fuzz_examples, forget_registered):
    one = TARGETS[name]
    write(tmp_path)
    worker = Worker(name, tmp_path)

    @settings(
        max_examples=fuzz_examples.count,
        derandomize=fuzz_examples.derandomize,
        deadline=None,
        database=None,
        print_blob=False,
        report_multiple_bugs=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=one.inputs)
    def check(content):
        outcome = worker(content)
        assert not outcome.is_failure, f"{outcome.kind}\n{outcome.detail}"

    try:
        check()
    finally:
        worker.stop()
