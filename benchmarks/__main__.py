"""python -m benchmarks: every claim that this machine can measure, and the table of README.md anew.

--quick runs everything at tiny sizes in a minute or two, to see that it runs; it leaves README.md alone.
"""

import argparse
import importlib
import platform
import re
import time
from datetime import date
from pathlib import Path

CLAIMS = {
    "data_path": "The loader's work on one image, one core",
    "dense_forward": "Dense features of one image",
    "distillation_step": "One step of the distillation",
    "growth": "How a step grows",
    "detection_postprocess": "A detector's second stage with 1,203 classes",
    "evaluation_scale": "Scoring detections of a set",
    "weak_scaling": "Training in several processes",
}
ON_CPU_ALONE = ("data_path", "evaluation_scale", "weak_scaling")
README = Path(__file__).with_name("README.md")
_TABLES = re.compile(r"(<!-- tables -->\n).*(<!-- end -->)", re.DOTALL)


def with_tables(readme: str, reports: dict[str, dict]) -> str:
    """The README with the tables of these reports between its marks."""
    machine = next(iter(reports.values()))
    lines = [f"{date.today()}, {machine['machine']}, {platform.system()}, PyTorch {machine['torch']}", ""]
    for name, report in reports.items():
        lines += [f"### {CLAIMS[name]} (`benchmarks.{name}`)", report["table"], ""]
    return _TABLES.sub(lambda match: match[1] + "\n".join(lines) + match[2], readme)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    options = parser.parse_args(arguments)
    reports = {}
    for name in options.only:
        start = time.perf_counter()
        given = ["--quick"] if options.quick else []
        given += [] if name in ON_CPU_ALONE else ["--device", options.device]
        reports[name] = importlib.import_module(f"benchmarks.{name}").main(given)
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n")
    if not options.quick:
        README.write_text(with_tables(README.read_text(), reports))


if __name__ == "__main__":
    main()
