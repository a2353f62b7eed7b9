"""Gloo processes that share an evaluation, forked after the imports: WORLD PORT FOLDER (see test_segmentation.py)."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from PIL import Image

from denserc.data.datasets.semantic import register_semantic_dataset
from denserc.data.images.labels import read_labels, write_labels
from denserc.evaluation import build_evaluator

IMAGES = 5


def registered(folder: Path) -> str:
    """A drawn set, registered as "ranks"; its files are written once."""
    draw = np.random.default_rng(0)
    for i in range(IMAGES):
        if not (folder / f"labels/{i}.png").is_file():
            write_labels(folder / f"labels/{i}.png", draw.integers(0, 3, (20, 30), dtype=np.uint8))
            (folder / "images").mkdir(exist_ok=True)
            Image.new("RGB", (30, 20)).save(folder / f"images/{i}.png")
    register_semantic_dataset(
        "ranks", folder / "images", folder / "labels", classes=["road", "sky", "tree", "car"], novel=["tree"]
    )
    return "ranks"


def evaluate(folder: Path, out: Path, rank: int, world: int) -> list[dict]:
    """This process's results over its share, the last image being of all; and those of a resumed evaluation."""
    evaluator = build_evaluator(registered(folder), out, sem_seg_protocols=["present", "present_or_predicted"])
    results = []
    for resume in (False, True):
        finished = evaluator.begin("weights", resume=resume)
        evaluator.reset()
        for i, record in enumerate(DatasetCatalog.get("ranks")):
            if record["image_id"] not in finished and (i % world == rank or i == IMAGES - 1):
                predicted = (read_labels(record["sem_seg_file_name"]).astype(np.int64) + (i % 2)) % 4
                evaluator.process([record], [{"sem_seg": torch.from_numpy(predicted)}])
        results.append(evaluator.evaluate())
    return results


def main(rank: int, world: int, port: str, folder: str) -> None:
    """One process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    comm.create_local_process_group(world)
    results = evaluate(Path(folder), Path(folder) / "out", rank, world)
    (Path(folder) / f"results{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    registered(Path(sys.argv[3]))
    mp.start_processes(main, (int(sys.argv[1]), *sys.argv[2:4]), nprocs=int(sys.argv[1]), start_method="fork")
