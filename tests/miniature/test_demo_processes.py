"""Stages in processes: order, results, errors, interruption, and terminal output."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
from tqdm import tqdm

from denserc.miniature.demo.processes import Stage, run_stages
from denserc.structures import DataError, DenseRCError
from tests.paths import ROOT


def span():
    """Begin and end of this stage, seconds; its process and number of threads."""
    start = time.monotonic()
    time.sleep(1.0)
    return start, time.monotonic(), os.getpid(), torch.get_num_threads()


def fail():
    raise DataError("The file x.json does not exist.")


def show_bar():
    for _ in tqdm(range(3), desc="counting"):
        pass
    print("a line")


def test_independent_stages_overlap_and_dependent_ones_wait():
    stages = [Stage("a", "first", span), Stage("c", "last", span, after=("a", "b")), Stage("b", "second", span)]
    found = run_stages(stages, 2)
    (a_start, a_end, a_process, threads), (b_start, b_end, b_process, _), c = (found[key] for key in "abc")
    assert a_start < b_end and b_start < a_end and a_process != b_process
    assert c[0] >= max(a_end, b_end)
    assert threads == 1
    assert not multiprocessing.active_children()


def test_one_process_runs_stages_in_order():
    found = run_stages([Stage(i, str(i), span) for i in range(2)], 1)
    assert found[0][1] <= found[1][0] and found[0][2] == found[1][2]


def test_error_of_a_stage_reaches_the_caller_and_stops_others():
    start = time.monotonic()
    with pytest.raises(DataError, match="x.json does not exist"):
        run_stages([Stage("long", "long", partial(time.sleep, 300)), Stage("bad", "bad", fail)], 2)
    assert time.monotonic() - start < 120
    children = multiprocessing.active_children()
    for process in children:
        process.join(10)
    assert not any(running(process.pid) for process in children)


def test_killed_process_is_an_error():
    with pytest.raises(DenseRCError, match="perhaps for lack of memory, in: the title"):
        run_stages([Stage("killed", "the title", partial(os._exit, 9))], 1)


def test_stages_that_wait_for_each_other_are_refused():
    with pytest.raises(ValueError, match="never end"):
        run_stages([Stage("a", "a", fail, after=("b",)), Stage("b", "b", fail, after=("a",))], 1)


def test_terminal_shows_lines_and_finished_bars(capsys):
    run_stages([Stage("shown", "seed 0: counting", show_bar)], 1)
    out = capsys.readouterr().out
    assert "== seed 0: counting\n" in out and "== seed 0: counting: finished" in out
    assert "\nseed 0: counting: 100%" in out and "\nseed 0: a line\n" in out
    assert "counting:   0%" not in out


SCRIPT = """
import signal
import time
from functools import partial
from denserc.miniature.demo.processes import Stage, run_stages
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the children of a background job
    run_stages([Stage(i, f"stage {i}", partial(time.sleep, 300)) for i in range(2)], 2)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_demo_leaves_no_process(tmp_path, number):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    main = subprocess.Popen([sys.executable, script], env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(children := workers_of(main.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1.0)  # past the start of Python, in which SIGINT is not yet ignored
    main.send_signal(number)
    assert main.wait(30) != 0
    while any(map(running, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(children) == 2 and not any(map(running, children))


def workers_of(parent: int) -> list[int]:
    command = ["ps", "-A", "-ww", "-o", "pid=", "-o", "ppid=", "-o", "args="]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return [int(row[0]) for row in rows if row[1] == str(parent) and "spawn_main" in row[2]]


def running(process: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()
    return bool(found) and not found.startswith("Z")
