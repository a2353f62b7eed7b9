"""Commands that SIGTERM or Ctrl-C ends: exit status, the way to go on, and processes that are started."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from denserc.distillation.export import PRODUCT_NAME
from denserc.distillation.trainer import latest_state, read_state
from tests.distillation.conftest import image_folder, make_cfg  # noqa: F401
from tests.paths import ROOT
from tests.states import assert_same_bits

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs process groups")
STEPS = 40
# Results depend on the number of threads: a resumed training has as many as the one that it continues.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture
def config(make_cfg, tmp_path):  # noqa: F811
    """A distillation of forty steps, which saves a state after the second."""
    cfg = make_cfg("SOLVER.MAX_ITER", STEPS, "SOLVER.CHECKPOINT_PERIOD", 2, "DATALOADER.NUM_WORKERS", 2)
    (tmp_path / "cfg.yaml").write_text(cfg.dump())
    return tmp_path / "cfg.yaml"


def start(config, output, *flags, words=()) -> subprocess.Popen:
    """The script in a process group of its own, as a terminal starts it."""
    command = [sys.executable, str(ROOT / "projects/Distillation/train_net.py"), "--config-file", str(config), *flags]
    with errors_of(output).open("w") as log:
        return subprocess.Popen(
            [*command, *words, "OUTPUT_DIR", str(output)],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            preexec_fn=_hear_interrupts,
        )


def _hear_interrupts() -> None:
    """Undo what a shell does to commands in the background, which would be inherited: it ignores SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def errors_of(output) -> Path:
    """File of what a process writes to stderr."""
    return output.with_name(f"{output.name}_errors.txt")


def wait_for_state(process: subprocess.Popen, output) -> None:
    """Wait until the first state is written."""
    deadline = time.monotonic() + 240
    while not (output / "last_checkpoint").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, errors_of(output).read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "processes", "send"),
    [
        (signal.SIGTERM, 1, os.killpg),  # a batch system: loaders' workers too
        (signal.SIGINT, 1, os.killpg),  # a terminal
        (signal.SIGTERM, 2, os.killpg),
        (signal.SIGTERM, 2, os.kill),  # only the process that has started the others
    ],
)
def test_a_stopped_command_says_how_to_go_on(config, tmp_path, number, processes, send):
    output, flags = tmp_path / "stopped", ("--num-gpus", str(processes)) if processes > 1 else ()
    process = start(config, output, *flags)
    wait_for_state(process, output)
    send(process.pid, number)
    status, errors = process.wait(timeout=240), errors_of(output).read_text()
    assert status == 128 + number, errors
    assert "Traceback" not in errors, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("To continue: ")]
    words = shlex.split(line.removeprefix("To continue: "))
    assert words[1].endswith("train_net.py") and words[-3:] == ["--resume", "OUTPUT_DIR", str(output)]
    state = read_state(latest_state(output))
    assert 0 < state["iteration"] < STEPS - 1
    if processes > 1:
        return
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, env=ENVIRONMENT)
    assert done.returncode == 0 and (output / PRODUCT_NAME).is_file()
    whole = start(config, tmp_path / "whole")
    assert whole.wait(timeout=300) == 0
    assert_same_bits(*(read_state(latest_state(folder)) for folder in (tmp_path / "whole", output)))


@pytest.mark.slow
def test_a_second_signal_ends_at_once(config, tmp_path):
    output = tmp_path / "ended"
    process = start(config, output)
    wait_for_state(process, output)
    for _ in range(20):  # the first may be answered before the second comes
        process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) in (-signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.slow
def test_an_error_in_several_processes_is_readable(config, tmp_path):
    process = start(config, tmp_path / "out", "--num-gpus", "2", words=("DISTILL.SOURCES", "('folder:/absent',)"))
    status, errors = process.wait(timeout=240), errors_of(tmp_path / "out").read_text()
    assert status == 2 and "Traceback" not in errors, errors
    assert "error in process 0: " in errors and "/absent is not a folder of images" in errors
