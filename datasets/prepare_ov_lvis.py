#!/usr/bin/env python3
"""Derives OV-LVIS's training file: LVIS v1 train without the annotations of rare classes; all images stay.

    python datasets/prepare_ov_lvis.py --root datasets --expect-official

Writes lvis_v1_train_norare.json.
"""

import argparse
import sys
from pathlib import Path

from denserc.data.split_files import write_lvis_norare
from denserc.data.splits import OFFICIAL_LVIS_TRAIN_IMAGES
from denserc.structures import DenseRCError


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("datasets"), help="data root (default: datasets)")
    parser.add_argument("--train-json", type=Path, help="default: ROOT/lvis/lvis_v1_train.json")
    parser.add_argument("--out", type=Path, help="output file (default: ROOT/lvis/lvis_v1_train_norare.json)")
    parser.add_argument(
        "--expect-official", action="store_true", help=f"fail unless it has {OFFICIAL_LVIS_TRAIN_IMAGES:,} images"
    )
    options = parser.parse_args(arguments)
    out = options.out or options.root / "lvis" / "lvis_v1_train_norare.json"
    counts = write_lvis_norare(
        out,
        options.train_json or options.root / "lvis" / "lvis_v1_train.json",
        expected_images=OFFICIAL_LVIS_TRAIN_IMAGES if options.expect_official else None,
    )
    print(f"{out}: {counts}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except DenseRCError as error:
        sys.exit(f"error: {error}")
