#!/usr/bin/env python3
"""Write the label files of the published semantic sets from their official files.

    python datasets/prepare_semantic.py ade20k_150 voc_20 voc_21 --root datasets
    python datasets/prepare_semantic.py coco_stuff --split train --root datasets --workers 8

Sets: coco_stuff (171 classes), coco_object (80 and background), ade20k_150, ade20k_847, context_59, context_60,
context_459, voc_20, voc_20_background (CAT-Seg's PAS-20b), voc_21, cityscapes (19). datasets/README.md shows where
their official files belong and where the label files go. Nothing is written if the number of files is not the published
one, unless --any-count is given.
"""

import argparse
import sys
from pathlib import Path

from denserc.data.datasets.semantic_files import CLASSES, PUBLISHED_COUNTS, SKIPPED_IF_ONLY, plan, write_label_files
from denserc.structures import exit_with


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=sorted(CLASSES), metavar="SET", help="see above")
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="data root (default: datasets)")
    parser.add_argument("--split", choices=("val", "train"), default="val", help="train is for coco_stuff only")
    parser.add_argument("--context-json", type=Path, help="trainval_merged.json (default: in VOCdevkit/VOC2010)")
    parser.add_argument("--workers", type=int, default=1, help="threads (default: 1)")
    parser.add_argument("--any-count", action="store_true", help="accept any number of files")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}; expected is 1 or more")
    for name in options.sets:
        jobs = plan(name, options.root, split=options.split, json_file=options.context_json)
        counts = write_label_files(
            jobs,
            expected=None if options.any_count else PUBLISHED_COUNTS[name, options.split],
            ignore=SKIPPED_IF_ONLY.get(name),
            workers=options.workers,
            title=name,
        )
        left_out = f", {counts.skipped:,} without any scored pixel left out" if counts.skipped else ""
        print(
            f"{jobs[0].out.parent}: {counts.files:,} label files{left_out}; "
            f"{counts.present(CLASSES[name])} of {CLASSES[name]} classes occur"
        )
    return 0


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
