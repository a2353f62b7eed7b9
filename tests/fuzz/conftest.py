"""The number of damaged inputs."""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Examples:
    """Inputs per kind of file.

    Args:
        count: Number.
        derandomize: The same inputs in every run.
    """

    count: int
    derandomize: bool


@pytest.fixture
def fuzz_examples(request) -> Examples:
    """30 fixed inputs, or --fuzz N random ones."""
    count = request.config.getoption("--fuzz", default=None)
    return Examples(30, True) if count is None else Examples(count, False)
