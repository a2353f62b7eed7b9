#!/usr/bin/env python3
"""Derive the OV-COCO files (48 base, 17 novel classes) from COCO instances annotations; classes match by name.

    python datasets/prepare_ov_coco.py --root datasets
    python datasets/prepare_ov_coco.py --train-json my_train.json --val-json my_val.json --out my_split \\
        --base base.txt --novel novel.txt

Writes instances_train2017_base.json (only base annotations, images without one dropped),
instances_val2017_all.json (all classes of the split, images without one dropped) and classes.json. With COCO's own
classes the numbers of images must be the published ones (train 107,761, val 4,836) unless --any-count is given.
"""

import argparse
import sys
from pathlib import Path

from denserc.data.datasets.splits import OFFICIAL_TRAIN_IMAGES, OFFICIAL_VAL_IMAGES, write_ov_coco_splits
from denserc.data.vocabulary.published import read_class_list, vocabulary
from denserc.structures import Vocabulary, exit_with


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="data root; inputs and output default to ROOT/coco/annotations")
    parser.add_argument("--train-json", type=Path, help="complete training annotations")
    parser.add_argument("--val-json", type=Path, help="complete validation annotations")
    parser.add_argument("--out", type=Path, help="output folder (default: ROOT/coco/annotations/ov_coco)")
    parser.add_argument("--base", type=Path, help="base classes: JSON list, or one name per line (default: COCO's 48)")
    parser.add_argument("--novel", type=Path, help="novel classes (default: COCO's 17)")
    parser.add_argument("--any-count", action="store_true", help="accept any number of images: a subset of COCO")
    options = parser.parse_args(arguments)
    if options.root is not None:
        annotations = options.root / "coco" / "annotations"
        options.out = options.out or annotations / "ov_coco"
        if options.train_json is None and options.val_json is None:
            options.train_json = annotations / "instances_train2017.json"
            options.val_json = annotations / "instances_val2017.json"
    if options.out is None or (options.train_json is None and options.val_json is None):
        parser.error("give --root, or --out with --train-json, --val-json or both")
    if (options.base is None) != (options.novel is None):
        parser.error("--base and --novel belong together")
    return options


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    classes = vocabulary("ov_coco")
    if options.base is not None:
        novel = read_class_list(options.novel)
        classes = Vocabulary((*read_class_list(options.base), *novel), novel=novel)
    published = options.base is None and not options.any_count
    counts = write_ov_coco_splits(
        options.out,
        classes,
        train_json=options.train_json,
        val_json=options.val_json,
        expected_train_images=OFFICIAL_TRAIN_IMAGES if published else None,
        expected_val_images=OFFICIAL_VAL_IMAGES if published else None,
    )
    print(f"{len(classes.base)} base and {len(classes.novel)} novel classes")
    for name, split in counts.items():
        novel = sum(split.per_class.get(n.strip(), 0) for n in classes.novel)
        print(f"{options.out / name}: {split}; {novel:,} annotations of novel classes")
    return 0


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
