#!/usr/bin/env python3
"""Label files and a data set description from one's own COCO annotations, panoptic or of instances.

    python datasets/prepare_own_semantic.py --panoptic my/panoptic.json --masks my/panoptic --images my/images \\
        --out my/semantic --name street
    python datasets/prepare_own_semantic.py --instances my/instances.json --images my/images --out my/semantic \\
        --name street --background

Writes OUT/labels/*.png (.tif where there are more than 255 classes), OUT/classes.json and OUT/NAME.yaml, which
DATASETS.REGISTER takes. Of instances, larger objects are painted first. Pixels of no object are ignored, or with
--background of the class "background".
"""

import argparse
import json
import os
import sys
from pathlib import Path

from denserc.data.datasets.semantic_files import instance_jobs, panoptic_jobs, write_label_files
from denserc.structures import exit_with
from denserc.structures.files import write_text


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--panoptic", type=Path, help="COCO panoptic JSON; needs --masks")
    source.add_argument("--instances", type=Path, help="COCO or LVIS instance JSON with masks")
    parser.add_argument("--masks", type=Path, help="folder of the panoptic PNG files")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--name", required=True, help="name of the data set, as in DATASETS")
    parser.add_argument("--split", choices=("train", "val"), default="val", help="use of the images (default: val)")
    parser.add_argument("--background", action="store_true", help='with --instances: others are class "background"')
    parser.add_argument("--ignore", type=int, help="value of ignored pixels (255; 65535 for more than 255 classes)")
    parser.add_argument("--workers", type=int, default=1, help="threads (default: 1)")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers is {options.workers}; expected is 1 or more")
    if (options.panoptic is None) != (options.masks is None):
        parser.error("--panoptic and --masks belong together")
    if not options.name.strip() or Path(options.name).name != options.name:
        parser.error(f"--name is {options.name!r}; expected is a name without folders")
    labels = options.out / "labels"
    if options.panoptic is not None:
        ignore = _ignore(options, options.panoptic)
        jobs, classes = panoptic_jobs(options.panoptic, options.masks, options.images, labels, ignore)
    else:
        ignore = _ignore(options, options.instances)
        jobs, classes = instance_jobs(options.instances, labels, ignore, background=options.background)
    counts = write_label_files(jobs, expected=None, workers=options.workers, title=options.name)
    write_text(options.out / "classes.json", json.dumps(classes, ensure_ascii=False) + "\n")
    description = options.out / f"{options.name}.yaml"
    images = os.path.relpath(options.images, options.out)
    lines = [
        f"name: {json.dumps(options.name)}",
        "classes: classes.json",
        f"ignore: {ignore}",
        f"{options.split}: {{images: {json.dumps(images)}, labels: labels}}",
    ]
    write_text(description, "\n".join(lines) + "\n")
    print(f"{labels}: {counts.files:,} label files; {counts.present(len(classes))} of {len(classes)} classes occur")
    print(f"{description}: DATASETS.REGISTER \"('{description}',)\" makes {options.name}_{options.split} known")
    return 0


def _ignore(options: argparse.Namespace, json_file: Path) -> int:
    if options.ignore is not None:
        return options.ignore
    from denserc.structures.files import read_annotation_file

    return 255 if len(read_annotation_file(json_file)["categories"]) < 255 else 65535


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
