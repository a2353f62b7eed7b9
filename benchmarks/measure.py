"""Interleaved timing, memory in processes of their own, the machine's peak, and the reports."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from denserc.structures.files import write_json

FOLDER = Path("output/benchmarks")  # where the scripts write their JSON


def machine(device: torch.device) -> str:
    """Describe the machine that the figures are measured on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads"


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def in_turns(
    calls: dict[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 1,
    settle: int = 0,
    device: torch.device | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time each call, interleaved round by round, so that a slow minute slows all of them.

    Args:
        calls: Calls by name.
        repeats: Number of rounds that count, after `warmup` rounds that do not.
        settle: Number of untimed calls before each timed one, as in a loop of its own: the call before it leaves other
            caches and pages.
        device: Device to synchronize after each call.
        clock: Clock in seconds; time.process_time for processor time, independent of other processes.
    """
    seconds = {name: [] for name in calls}
    for turn in range(warmup + repeats):
        for name, call in calls.items():
            for _ in range(settle):
                call()
            start = clock()
            call()
            if device is not None:
                wait(device)
            if turn >= warmup:
                seconds[name].append(clock() - start)
    return seconds


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float]:
    """Ratio of their seconds to ours, round by round: median, smallest and largest."""
    each = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def written(value: dict[str, float]) -> str:
    """A ratio for a table: "2.31 (2.20 to 2.45)"."""
    return f"{value['median']:.2f} ({value['min']:.2f} to {value['max']:.2f})"


def peak_resident_kib() -> int:
    """This process's largest resident size so far. Not ru_maxrss, which a child inherits from a larger parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def peak_gib(device: torch.device, before_kib: int) -> float:
    """GPU: what PyTorch allocated at most. CPU: the largest resident size above an earlier one (Linux)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return (peak_resident_kib() - before_kib) / 2**20


def apart(module: str, arguments: Sequence[str]) -> dict:
    """The JSON that `python -m module arguments` prints last, from a fresh process; {"error": ...} if it fails."""
    done = subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        return {"error": lines[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def matmul_peak(device: torch.device, dtype: torch.dtype, width: int, tokens: int, seconds: float = 2.0) -> float:
    """Multiply-accumulates per second of the fastest repetition of a ViT's large product, (tokens, D) x (D, 4 D), warm.

    Args:
        device, dtype: Device and type of the product.
        width: Width D.
        tokens: Number of rows.
        seconds: Seconds of repetition.
    """
    a = torch.randn(tokens, width, device=device).to(dtype)
    b = torch.randn(width, 4 * width, device=device).to(dtype)
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        once = time.perf_counter()
        _ = a @ b
        wait(device)
        best = max(best, tokens * width * 4 * width / (time.perf_counter() - once))
    return best


def write(name: str, report: dict, folder: Path = FOLDER) -> None:
    """FOLDER/name.json."""
    write_json(folder / f"{name}.json", report, indent=2)


class Stopwatch:
    """Seconds inside some methods, by name, while it is entered; what they call counts for them.

    Args:
        methods: Mapping name -> (object, name of its method).
        device: Device to synchronize before and after each call.

    Attributes:
        laps: These seconds, for each time it was entered.
    """

    def __init__(self, methods: dict[str, tuple[object, str]], device: torch.device):
        self.methods = methods
        self.device = device
        self.laps: list[dict[str, float]] = []

    def mean(self, settle: int = 0) -> dict[str, float]:
        """Mean of the laps that `in_turns` counts, without warm-up."""
        return {name: statistics.mean(lap[name] for lap in self.laps[settle :: settle + 1]) for name in self.methods}

    def __enter__(self) -> "Stopwatch":
        self.laps.append(dict.fromkeys(self.methods, 0.0))
        for name, (owner, method) in self.methods.items():
            setattr(owner, method, self._timed(name, getattr(owner, method)))
        return self

    def __exit__(self, *_) -> None:
        for owner, method in self.methods.values():
            delattr(owner, method)  # the class's own is seen again

    def _timed(self, name: str, call: Callable) -> Callable:
        def timed(*args, **options):
            wait(self.device)
            start = time.perf_counter()
            result = call(*args, **options)
            wait(self.device)
            self.laps[-1][name] += time.perf_counter() - start
            return result

        return timed
