"""Train by the real command, killed repeatedly: CONFIG FOLDER KILLS SEED (see test_killed.py).

Every training is a process of its own, forked after the imports. It writes FOLDER/undisturbed by one process, and
FOLDER/killed by KILLS processes that are ended by SIGKILL and a last one that is not. Prints one JSON object.
"""

import importlib.util
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from denserc.distillation.trainer import DistillationTrainer, latest_state
from denserc.launch import launch_command
from denserc.structures.files import partial_files
from tests.paths import ROOT

STEPS = 24  # of the configuration


def command_main():
    """main() of projects/Distillation/train_net.py."""
    path = ROOT / "projects" / "Distillation" / "train_net.py"
    spec = importlib.util.spec_from_file_location("train_net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


class HalfWritten:
    """A file whose writing kills the process after a number of bytes."""

    def __init__(self, file, limit: int):
        self.file, self.left = file, limit

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            self.file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def die_while_writing(limit: int) -> None:
    """From now on this process dies after `limit` bytes of its next resume state."""
    save = torch.save
    torch.save = lambda content, file: save(content, HalfWritten(file, limit))


def die_in_step(step: int) -> None:
    """From now on this process dies while it computes the step, after its gradients."""
    plain = DistillationTrainer.after_backward

    def after_backward(trainer):
        if trainer.iter >= step:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(trainer)

    DistillationTrainer.after_backward = after_backward


def fork(main, arguments: list[str], prepare=lambda: None) -> int:
    """Starts the command in a process of its own; its output goes to a file. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = os.open(os.environ["KILLED_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        prepare()
        launch_command(main, arguments)
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def ending(pid: int) -> int:
    """Waits; the signal that ended the process as a negative number, or its exit status."""
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def steps_done(folder: Path) -> int:
    """Steps of the newest checkpoint; STEPS after the last."""
    latest = latest_state(folder)
    if latest is None:
        return 0
    return STEPS if latest.stem == "state_final" else int(latest.stem.removeprefix("state_")) + 1


def main(config: str, folder: Path, kills: int, seed: int) -> dict:
    torch.set_num_threads(1)
    train, rng = command_main(), random.Random(seed)
    flags = ["--config-file", config, "--resume", "OUTPUT_DIR"]
    assert ending(fork(train, [*flags, str(folder / "undisturbed")])) == 0
    total, killed, endings, at, partials = steps_done(folder / "undisturbed"), folder / "killed", [], [], 0
    for number in range(kills):
        done = steps_done(killed)
        # Steps left are shared among the kills left, so that the last one still finds some to disturb.
        reach = min(total - 1, done + rng.randint(0, max(1, 2 * (total - done) // (kills - number + 1))))
        if number % 3 == 0:
            limit = rng.randrange(1, 10_000_000)
            endings.append(ending(fork(train, [*flags, str(killed)], lambda limit=limit: die_while_writing(limit))))
        elif number % 3 == 1:
            endings.append(ending(fork(train, [*flags, str(killed)], lambda reach=reach: die_in_step(reach))))
        else:
            # From outside, at whatever it does then.
            pid = fork(train, [*flags, str(killed)])
            while steps_done(killed) < reach and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.2))
            os.kill(pid, signal.SIGKILL)
            endings.append(ending(pid))
        at.append(steps_done(killed))
        partials += any(partial_files(killed))
    last = ending(fork(train, [*flags, str(killed)]))
    return {"kills": endings, "last": last, "states": at, "partials": partials, "steps": total}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))))
