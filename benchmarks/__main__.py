"""python -m benchmarks: measure every claim that this machine can measure, and rewrite the table of README.md.

--quick runs everything at tiny sizes in a minute or two, to check that it runs; it does not change README.md.
"""

import argparse
import importlib
import platform
import re
import sys
import time
import traceback
from datetime import date
from pathlib import Path

CLAIMS = {
    "data_path": "The loader's work on one image, one core",
    "dense_forward": "Dense features of one image",
    "distillation_step": "One step of the distillation",
    "growth": "How a step grows",
    "detector": "A whole detector's inference",
    "heads_training": "A step of training a detector's heads",
    "detection_postprocess": "A detector's second stage with 1,203 classes",
    "evaluation_scale": "Scoring detections of a set",
    "segmentation_inference": "CAT-Seg's inference of one picture",
    "segmentation_training": "A step of training CAT-Seg",
    "semantic_evaluation": "Scoring label maps of 847 classes",
    "weak_scaling": "Training in several processes",
}
ON_CPU_ALONE = ("data_path", "evaluation_scale", "semantic_evaluation", "weak_scaling")
README = Path(__file__).with_name("README.md")
_TABLES = re.compile(r"(<!-- tables -->\n).*(<!-- end -->)", re.DOTALL)
_SECTION = re.compile(r"^### .*?\(`benchmarks\.(\w+)`\)\n.*?(?=^### |^<!-- end -->)", re.DOTALL | re.MULTILINE)


def with_tables(readme: str, reports: dict[str, dict]) -> str:
    """The README with these reports' sections between its marks; those of other claims stay as they are."""
    sections = {found[1]: found[0] for found in _SECTION.finditer(readme)}
    for name, report in reports.items():
        where = f"{date.today()}, {report['machine']}, {platform.system()}, PyTorch {report['torch']}"
        notes = "".join(f"\n{note}\n" for note in report.get("notes", []))
        sections[name] = f"### {CLAIMS[name]} (`benchmarks.{name}`)\n{where}\n\n{report['table']}\n{notes}\n"
    text = "".join(sections[name] for name in CLAIMS if name in sections)
    return _TABLES.sub(lambda match: match[1] + text + match[2], readme)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 if a claim could not be measured, which loses none of the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--only", nargs="+", choices=CLAIMS, default=list(CLAIMS))
    options = parser.parse_args(arguments)
    failed = []
    for name in options.only:
        start = time.perf_counter()
        given = ["--quick"] if options.quick else []
        given += [] if name in ON_CPU_ALONE else ["--device", options.device]
        try:
            report = importlib.import_module(f"benchmarks.{name}").main(given)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        print(f"({name}: {time.perf_counter() - start:.0f} s)\n", flush=True)
        if not options.quick:
            README.write_text(with_tables(README.read_text(), {name: report}))
    if failed:
        print(f"Not measured: {', '.join(failed)}; the errors are above.", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
