"""Unreadable images are reported once each, and more than the share are an error."""

import logging

import pytest

from denserc.data.images.tolerance import UnreadableMonitor
from denserc.structures import ConfigurationError, DataError

TWO = [("a.png", "a.png cannot be read"), ("b.png", "b.png cannot be read")]


def test_each_image_is_reported_once(caplog):
    monitor = UnreadableMonitor(total=200)
    with caplog.at_level(logging.WARNING):
        monitor.see(TWO)
        monitor.see_own(TWO)
        monitor.join()
    assert [record.getMessage() for record in caplog.records] == [
        "Skipped an unreadable image (1 so far): a.png cannot be read",
        "Skipped an unreadable image (2 so far): b.png cannot be read",
    ]
    assert dict(TWO) == monitor.reasons


@pytest.mark.parametrize("method", ["see", "see_own"])
def test_more_than_the_share_are_an_error(method):
    monitor = UnreadableMonitor(total=200)
    getattr(monitor, method)(TWO)
    with pytest.raises(DataError, match=r"3 of 200.*1.0% that DATALOADER.MAX_UNREADABLE allows.*third.png"):
        getattr(monitor, method)([("third.png", "truncated")])


@pytest.mark.parametrize(("total", "limit", "allowed"), [(3, 0.01, 1), (3, 0.0, 0), (200, 0.01, 2), (10, 1.0, 10)])
def test_one_image_may_be_unreadable_unless_the_share_is_0(total, limit, allowed):
    assert UnreadableMonitor(total=total, limit=limit).allowed == allowed


def test_a_share_outside_0_to_1_is_refused():
    with pytest.raises(ConfigurationError, match=r"must be in 0\.\.1; got 1\.5"):
        UnreadableMonitor(total=3, limit=1.5)


def test_the_other_processes_count_at_the_end(monkeypatch):
    monitor = UnreadableMonitor(total=100)
    monitor.see_own(TWO[:1])
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda own: [own, TWO[1:]])
    with pytest.raises(DataError, match="2 of 100 images"):
        monitor.join()
