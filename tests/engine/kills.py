"""Kill trainings at random moments, resume them, and compare their ends with those of undisturbed ones.

    python -m tests.engine.kills --trials 100

The trainings are those of the commands `denserc distill` and `denserc train` (a detector and CAT-Seg), at tiny sizes on
the CPU. A third of the kills each comes from outside at a random time, at a random operation on files (before or after
it), and within the bytes of a checkpoint. After one to five kills the training is resumed to its end. Every file must
then be identical to that of the undisturbed training.

Every training is a process of its own, forked after the imports.
"""

import argparse
import dataclasses
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open

from denserc.commands import distill, train
from denserc.config import get_denserc_config
from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.structures.atomic import partial_files
from denserc.structures.locks import LOCK_NAME
from tests.detection import squares
from tests.paths import ROOT
from tests.segmentation import squares as semantic
from tests.states import assert_same_bits

MOMENTS = ("time", "operation", "write")
OPERATIONS = ("replace", "fsync", "unlink", "mkdir", "rmdir")  # of the module os
_LOGS = ("log.txt", "events.out", "metrics.json", "config.yaml")


@dataclasses.dataclass(frozen=True)
class Training:
    """A command and its configuration.

    Args:
        command: Function of the arguments.
        config: Function of a folder; writes data there, registers them and gives the configuration.
    """

    command: Callable[[list[str]], None]
    config: Callable[[Path], object]


def distillation_config(folder: Path):
    """Ten random pictures; 12 steps with accumulation, an average and a blended product."""
    (folder / "images").mkdir()
    rng = np.random.default_rng(0)
    for index in range(10):
        size = rng.integers(40, 90, 2).tolist()
        Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(size).save(
            folder / f"images/{index}.png"
        )
    cfg = get_denserc_config()
    cfg.merge_from_list(
        ["MODEL.DEVICE", "cpu", "MODEL.ENCODER.NAME", "DenseRC-Miniature", "MODEL.ENCODER.RANDOM_INIT", True]
        + ["DISTILL.SOURCES", (f"folder:{folder / 'images'}",), "INPUT.SIZE", 64, "DISTILL.CROP_SIZE", 32]
        + ["DISTILL.FOUNDATION.NAME", "colour_texture_p8", "DISTILL.REGIONS.MAX_SPLIT", 2, "SEED", 3]
        + ["SOLVER.BETAS", (0.9, 0.98), "SOLVER.EPS", 1e-6, "SOLVER.REFERENCE_BATCH", 16, "SOLVER.ACCUMULATE", 2]
        + ["SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 1e-3, "SOLVER.MAX_ITER", 12, "SOLVER.WARMUP_ITERS", 2]
        + ["SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.EMA.DECAY", 0.9, "DISTILL.EXPORT_BLEND", 0.7]
        + ["DATALOADER.NUM_WORKERS", 0]
    )
    return cfg


_SCHEDULE = {"SOLVER__MAX_ITER": 12, "SOLVER__CHECKPOINT_PERIOD": 2, "TEST__EVAL_PERIOD": 4, "SEED": 3}


def detector_config(folder: Path):
    """Six pictures of squares; 12 steps, evaluated every 4, with the best checkpoint."""
    file = squares.write_squares(folder)
    for name, training in (("squares_train", True), ("squares_val", False)):
        base, novel = squares.CLASSES[:2], squares.CLASSES[2:]
        register_open_vocab_dataset(name, file, folder, base=base, novel=novel, training=training)
    return squares.squares_config(folder, **_SCHEDULE, DATALOADER__NUM_WORKERS=0, TEST__BEST="auto")


def catseg_config(folder: Path):
    """The same as a semantic set."""
    semantic.register_squares(folder)
    return semantic.squares_config(folder, **_SCHEDULE, TEST__BEST="auto", MODEL__CATSEG__OUTPUT="labels")


TRAININGS = {
    "distillation": Training(distill.main, distillation_config),
    "detector": Training(train.main, detector_config),
    "catseg": Training(train.main, catseg_config),
}


class _HalfWritten:
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


def die_while_writing(number: int, limit: int) -> None:
    """From now on this process dies after `limit` bytes of its next checkpoint but `number`."""
    save, count = torch.save, iter(range(number))
    torch.save = lambda content, file: save(
        content, file if next(count, None) is not None else _HalfWritten(file, limit)
    )


def die_at_operation(number: int, *, before: bool) -> None:
    """From now on this process dies before or after its operation on files with this number."""
    numbered = iter(range(number))

    def wrapped(operation):
        def run(*arguments, **options):
            last = next(numbered, None) is None
            if last and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = operation(*arguments, **options)
            if last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return run

    for name in OPERATIONS:
        setattr(os, name, wrapped(getattr(os, name)))


def count_operations(file: Path) -> None:
    """From now on a byte of the file is written for every operation that `die_at_operation` counts."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def wrapped(operation):
        def run(*arguments, **options):
            os.write(descriptor, b".")
            return operation(*arguments, **options)

        return run

    for name in OPERATIONS:
        setattr(os, name, wrapped(getattr(os, name)))


def fork(training: Training, config: Path, output: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Start the command in a process of its own; its output goes to a file beside `output`. Returns its id."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        log = os.open(output.with_name("commands.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        prepare()
        training.command(["--config-file", str(config), "--resume", "OUTPUT_DIR", str(output)])
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ending(pid: int) -> int:
    """Wait for a process; the signal that ended it as a negative number, or its exit status."""
    _, status = os.waitpid(pid, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def kept_files(output: Path) -> dict[str, Path]:
    """The files of a training but for its logs, by their path in the output folder."""
    files = (path for path in sorted(output.rglob("*")) if path.is_file())
    return {path.relative_to(output).as_posix(): path for path in files if not path.name.startswith(_LOGS)}


def _tensors_and_metadata(path: Path) -> dict:
    """Content of a safetensors file, whose metadata have no order."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        return {"tensors": tensors, "metadata": dict(sorted((file.metadata() or {}).items()))}


READERS = {".pth": lambda path: torch.load(path, weights_only=True), ".safetensors": _tensors_and_metadata}


def assert_same_ends(one: Path, two: Path) -> None:
    """Assert that two output folders have the same files with the same content.

    Raises:
        AssertionError: They differ, or there are unfinished files.
    """
    first, second = kept_files(one), kept_files(two)
    assert list(first) == list(second), (list(first), list(second))
    for name, path in first.items():
        if path.suffix in READERS:
            assert_same_bits(*(READERS[path.suffix](file) for file in (path, second[name])), name)
        else:
            assert path.read_bytes() == second[name].read_bytes(), name
    for folder in (two, *(path for path in two.rglob("*") if path.is_dir())):
        assert not partial_files(folder), folder
    assert not (two / LOCK_NAME).exists()
    for line in (two / "metrics.json").read_text().splitlines():
        json.loads(line)


@dataclasses.dataclass
class Report:
    """Counts of one training's kills.

    Args:
        kills: Kills by moment; a training that ended before its kill counts as none.
        unfinished: Kills that left an unfinished file.
        resumed: Trainings that were killed at least once and resumed to the end.
        failures: Descriptions of those that did not end as the undisturbed one.
        undisturbed_s: Seconds of the undisturbed training.
    """

    kills: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(MOMENTS, 0))
    unfinished: int = 0
    resumed: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    undisturbed_s: float = 0.0

    @property
    def tried(self) -> int:
        """Number of kills."""
        return sum(self.kills.values())


def run_trials(name: str, folder: Path, kills: int, seed: int) -> Report:
    """Kill one training that many times.

    Args:
        name: A key of TRAININGS.
        folder: Empty folder.
        kills: Number of kills.
        seed: Seed of the moments.
    """
    training, rng, report = TRAININGS[name], random.Random(seed), Report()
    (folder / "data").mkdir(parents=True)
    config, output, whole = folder / "cfg.yaml", folder / "run", folder / "undisturbed"
    config.write_text(training.config(folder / "data").dump())
    start = time.perf_counter()
    status = ending(fork(training, config, output, lambda: count_operations(folder / "operations")))
    assert status == 0, (folder / "commands.log").read_text()[-3000:]
    report.undisturbed_s = time.perf_counter() - start
    operations = (folder / "operations").stat().st_size
    output.rename(whole)  # the checkpoints contain the name of their folder, so all trainings have the same
    largest = max(path.stat().st_size for path in whole.glob("*.pth"))
    while report.tried < kills:
        moments = []
        for _ in range(min(rng.randint(1, 5), kills - report.tried)):
            moment = MOMENTS[rng.randrange(3)]
            if moment == "operation":
                number, before = rng.randrange(operations), rng.random() < 0.5
                pid = fork(training, config, output, lambda: die_at_operation(number, before=before))  # noqa: B023
                moments.append(f"{'before' if before else 'after'} operation {number}")
            elif moment == "write":
                number, limit = rng.randrange(6), rng.randrange(1, largest)
                pid = fork(training, config, output, lambda: die_while_writing(number, limit))  # noqa: B023
                moments.append(f"after {limit} bytes of checkpoint {number}")
            else:
                pid, seconds = fork(training, config, output), rng.uniform(0, report.undisturbed_s)
                time.sleep(seconds)
                os.kill(pid, signal.SIGKILL)
                moments.append(f"after {seconds:.2f} s")
            status = ending(pid)
            if status == -signal.SIGKILL:
                report.kills[moment] += 1
                report.unfinished += any(partial_files(one) for one in (output, *output.rglob("*")) if one.is_dir())
            elif status != 0:
                break
        if status in (0, -signal.SIGKILL):
            status = ending(fork(training, config, output))
        try:
            assert status == 0, (folder / "commands.log").read_text()[-3000:]
            assert_same_ends(whole, output)
            report.resumed += 1
        except AssertionError as error:
            report.failures.append(f"{name}, {'; '.join(moments)}: {error}")
            output.rename(folder / f"failed{len(report.failures)}")
        else:
            _remove(output)
            (folder / "commands.log").unlink()
    return report


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; its status is 1 if a training did not survive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100, help="kills of all trainings together (default: 100)")
    parser.add_argument("--trainings", nargs="+", choices=TRAININGS, default=list(TRAININGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="empty folder, kept (default: a temporary one)")
    parser.add_argument("--json", action="store_true", help="print one JSON object per training instead of text")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    os.chdir(ROOT)
    failed = 0
    with tempfile.TemporaryDirectory() as temporary:
        for index, name in enumerate(options.trainings):
            share = (options.trials + len(options.trainings) - 1 - index) // len(options.trainings)
            report = run_trials(name, (options.folder or Path(temporary)) / name, share, options.seed)
            failed += len(report.failures)
            if options.json:
                print(json.dumps(dataclasses.asdict(report)), flush=True)
                continue
            ends = report.resumed + len(report.failures)
            print(
                f"{name}: {report.tried} kills ({', '.join(f'{n} by {key}' for key, n in report.kills.items())}), "
                f"{report.unfinished} of them left an unfinished file; {report.resumed} of {ends} trainings ended "
                f"bitwise identically (undisturbed: {report.undisturbed_s:.1f} s)",
                flush=True,
            )
            for failure in report.failures:
                print(f"  {failure}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
