#!/usr/bin/env python3
"""Derives OV-LVIS's training file: LVIS v1 train without the annotations of rare classes; all images stay.

    python datasets/prepare_ov_lvis.py --root datasets

Writes lvis_v1_train_norare.json, and counts the validation file, which is used as it is. The numbers of images must be
the published ones (train 100,170, val 19,809) unless --any-count is given.
"""

import argparse
import sys
from pathlib import Path

from denserc.data.datasets.entries import read_annotations
from denserc.data.datasets.splits import OFFICIAL_LVIS_TRAIN_IMAGES, OFFICIAL_LVIS_VAL_IMAGES, count, write_lvis_norare
from denserc.structures import exit_with


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="data root (default: datasets)")
    parser.add_argument("--train-json", type=Path, help="default: ROOT/lvis/lvis_v1_train.json")
    parser.add_argument("--out", type=Path, help="output file (default: ROOT/lvis/lvis_v1_train_norare.json)")
    parser.add_argument("--val-json", type=Path, help="only counted (default: ROOT/lvis/lvis_v1_val.json)")
    parser.add_argument("--any-count", action="store_true", help="accept any number of images; val may be absent")
    options = parser.parse_args(arguments)
    out = options.out or options.root / "lvis" / "lvis_v1_train_norare.json"
    val_json = options.val_json or options.root / "lvis" / "lvis_v1_val.json"
    if val_json.is_file() or not options.any_count:
        counts = count(read_annotations(val_json))
        counts.require(images=None if options.any_count else OFFICIAL_LVIS_VAL_IMAGES, what=str(val_json))
        print(f"{val_json}: {counts}")
    counts = write_lvis_norare(
        out,
        options.train_json or options.root / "lvis" / "lvis_v1_train.json",
        expected_images=None if options.any_count else OFFICIAL_LVIS_TRAIN_IMAGES,
    )
    print(f"{out}: {counts}")
    return 0


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
