"""The loader's work on one training image of F-ViT, on one core: decode, jitter, crop, flip, boxes, bitmaps.

    python -m benchmarks.detector_loader --config-file configs/ovlvis_vitl14.yaml

On drawn images of COCO's size with as many objects as LVIS has on average, octagons for masks.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.data_path import drawn_images
from benchmarks.generated_sets import SETS, write_set
from benchmarks.measure import in_turns, machine, write
from denserc.config import read_config
from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.detection.data import training_mapper
from denserc.openvocab.loader import build_train_loader, training_records


def main(arguments: list[str] | None = None) -> dict:
    """The command line; returns what it writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", default="configs/ovlvis_vitl14.yaml")
    parser.add_argument("--count", type=int, default=16, help="images")
    parser.add_argument("--repeats", type=int, default=5, help="visits of each")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    cfg = read_config(options.config_file)
    cfg.defrost()
    cfg.DATALOADER.NUM_WORKERS = 0
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader's worker
    try:
        with tempfile.TemporaryDirectory() as folder:
            cfg.DATASETS.TRAIN = (drawn_set(Path(folder), options.count),)
            stream = build_train_loader(
                cfg, training_mapper(cfg), start=0, seed=0, records=training_records(cfg)
            ).dataset
            places = iter(range(options.count * (options.repeats + 1)))
            read = {"image": lambda: stream[next(places)]}
            seconds = in_turns(
                read, repeats=options.count * options.repeats, warmup=options.count, clock=time.process_time
            )
    finally:
        torch.set_num_threads(threads)
    report = {
        "machine": machine(torch.device("cpu")),
        "torch": torch.__version__,
        "settings": vars(options),
        "milliseconds": 1e3 * statistics.mean(seconds["image"]),
    }
    print(f"{options.config_file}: {report['milliseconds']:.1f} ms of one core an image, {report['machine']}")
    write("detector_loader", report)
    return report


def drawn_set(folder: Path, count: int) -> str:
    """The name of a registered set of drawn images below the folder, with objects and masks as LVIS has them."""
    size = SETS["lvis_val"]
    write_set(folder, size, share=count / size.images, masks=True)
    truth = json.loads((folder / "truth.json").read_text())
    for path, entry in zip(drawn_images(folder, count), truth["images"], strict=True):
        Path(path).rename(folder / entry["file_name"])
    names = [category["name"] for category in truth["categories"]]
    name = f"drawn {folder.name}"
    register_open_vocab_dataset(name, folder / "truth.json", folder, base=names[1:], novel=names[:1])
    return name


if __name__ == "__main__":
    main()
