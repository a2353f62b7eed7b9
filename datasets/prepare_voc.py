#!/usr/bin/env python3
"""Pascal VOC 2007's test set as a COCO annotation file.

    python datasets/prepare_voc.py --root datasets

Reads ROOT/VOCdevkit/VOC2007 (ImageSets/Main, Annotations) and writes voc2007_test.json there. Objects marked
difficult become crowds, which evaluation ignores. The number of images must be the published one (4,952; trainval:
5,011) unless --any-count is given.
"""

import argparse
import sys
from pathlib import Path

from denserc.data.datasets.transfer import VOC_IMAGES, write_voc
from denserc.data.vocabulary.published import vocabulary
from denserc.structures import ConfigurationError, exit_with


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="data root (default: datasets)")
    parser.add_argument("--year", default="2007", help="ROOT/VOCdevkit/VOC<year> is read (default: 2007)")
    parser.add_argument("--image-set", default="test", help="a list in ImageSets/Main (default: test)")
    parser.add_argument("--out", type=Path, help="output file (default: voc<year>_<image set>.json in VOC<year>)")
    parser.add_argument("--any-count", action="store_true", help="accept any number of images")
    options = parser.parse_args(arguments)
    folder = options.root / "VOCdevkit" / f"VOC{options.year}"
    published = (folder.name, options.image_set)
    if published not in VOC_IMAGES and not options.any_count:
        known = ", ".join(" ".join(key) for key in VOC_IMAGES)
        raise ConfigurationError(f"No count to compare {' '.join(published)} with ({known}); add --any-count.")
    out = options.out or folder / f"voc{options.year}_{options.image_set}.json"
    counts = write_voc(
        out,
        folder,
        options.image_set,
        vocabulary("voc").names,
        expected_images=None if options.any_count else VOC_IMAGES[published],
    )
    print(f"{out}: {counts}")
    return 0


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
