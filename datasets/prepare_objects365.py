#!/usr/bin/env python3
"""Objects365's validation set with classes by name: from the official file, whatever order it lists them in.

    python datasets/prepare_objects365.py --root datasets --version v1
    python datasets/prepare_objects365.py --root datasets --version v2

Reads ROOT/objects365v1/objects365_val.json or ROOT/objects365v2/zhiyuan_objv2_val.json and writes
objects365_val_names.json beside it: blanks and, in v2, misspelt names put right; ids and boxes as they were. The
number of images must be the published one (v1: 30,000, v2: 80,000) unless --any-count is given.
"""

import argparse
import sys
from pathlib import Path

from denserc.data.datasets.transfer import OBJECTS365_VAL, OBJECTS365_VAL_IMAGES, write_objects365
from denserc.data.vocabulary.published import objects365_v2_misspelt, vocabulary
from denserc.structures import exit_with

OFFICIAL = {"v1": "objects365_val.json", "v2": "zhiyuan_objv2_val.json"}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="data root (default: datasets)")
    parser.add_argument("--version", choices=sorted(OFFICIAL), required=True, help="the paper's transfer is v1")
    parser.add_argument("--json", type=Path, help="another file of this version, e.g. its training file")
    parser.add_argument("--out", type=Path, help=f"output file (default: {OBJECTS365_VAL} in the version's folder)")
    parser.add_argument("--any-count", action="store_true", help="accept any number of images: a subset, or train")
    options = parser.parse_args(arguments)
    folder = options.root / f"objects365{options.version}"
    out = options.out or folder / OBJECTS365_VAL
    counts = write_objects365(
        out,
        options.json or folder / OFFICIAL[options.version],
        vocabulary(f"objects365_{options.version}"),
        misspelt=objects365_v2_misspelt() if options.version == "v2" else None,
        image_root=folder / "val",
        expected_images=None if options.any_count else OBJECTS365_VAL_IMAGES[options.version],
    )
    print(f"{out}: {counts}")
    return 0


if __name__ == "__main__":
    exit_with(main, sys.argv[1:])
