"""Batches of an evaluation when processes share the images, and some cannot be read."""

import pytest

from denserc.data.images.tolerance import UnreadableMonitor
from denserc.openvocab.loader import ReadableBatches, _Unreadable
from denserc.structures import DataError


class Loader(list):
    """Batches, as of a DataLoader."""


def unreadable(index):
    return _Unreadable(index, f"{index}.png", f"{index}.png cannot be read")


def test_batches_without_a_readable_image_are_left_out():
    loader = Loader([[{"image_id": 0}, unreadable(1)], [unreadable(2)], [{"image_id": 3}]])
    batches = ReadableBatches(loader, UnreadableMonitor(total=4, limit=0.5))
    assert list(batches) == [[{"image_id": 0}], [{"image_id": 3}]]
    assert list(batches.monitor.reasons) == ["1.png", "2.png"] and len(batches) == 3


def test_all_processes_stop_if_their_sum_is_too_much(monkeypatch):
    """Each has read its own share to the end; the last step is common."""
    others = [("7.png", "7.png cannot be read")]
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda own: [own, others])
    batches = ReadableBatches(Loader([[{"image_id": 0}], [unreadable(1)]]), UnreadableMonitor(total=10, limit=0.1))
    found = iter(batches)
    assert next(found) == [{"image_id": 0}]
    with pytest.raises(DataError, match=r"2 of 10 images.*1\.png.*7\.png"):
        next(found)
