"""A signal in the middle of a step of a training."""

import os
import signal

import pytest

from denserc.structures import TrainingStopped
from tests.states import assert_same_bits


def assert_same_state(one: dict, two: dict) -> None:
    """Checkpoints of a model's training, whose configurations differ by OUTPUT_DIR."""
    assert_same_bits(*({key: value for key, value in state.items() if key != "denserc"} for state in (one, two)))


def stop_in_step(monkeypatch, owner: type, method: str, count: int, number: int, run) -> None:
    """Run a training to which a signal comes in the `count`-th call of a method of its trainer; it must stop.

    The handlers of the process are as before afterwards.
    """
    plain, calls = getattr(owner, method), []
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background
    before = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]

    def with_signal(self, *args, **options):
        calls.append(None)
        if len(calls) == count:
            os.kill(os.getpid(), number)
        return plain(self, *args, **options)

    try:
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, with_signal)
            with pytest.raises(TrainingStopped) as stop:
                run()
        assert stop.value.status == 128 + number and len(calls) == count
        assert [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)] == before
    finally:
        signal.signal(signal.SIGINT, heard)
