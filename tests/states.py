"""Comparison of nested training states."""

import torch


def assert_close(one, two, tolerance: float, where: str = "") -> None:
    """Nested states with the same keys in the same order, their tensors equal up to a tolerance."""
    if isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            assert_close(one[key], two[key], tolerance, f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for first, second in zip(one, two, strict=True):
            assert_close(first, second, tolerance, where)
    elif isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, two, atol=tolerance, rtol=0, msg=lambda text: f"{where}: {text}")
    else:
        assert one == two, where


def assert_same_bits(one, two, where=""):
    """Assert that nested dictionaries and sequences are equal, their tensors bitwise."""
    assert type(one) is type(two), where
    if isinstance(one, dict):
        assert list(one) == list(two), where
        for key in one:
            assert_same_bits(one[key], two[key], f"{where}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(two), where
        for index, (first, second) in enumerate(zip(one, two, strict=True)):
            assert_same_bits(first, second, f"{where}/{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two), where
    else:
        assert one == two, where
