"""Gloo processes that share an evaluation, forked after the imports: WORLD PORT FOLDER (see test_ranks.py)."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.evaluation import build_evaluator, with_recall
from tests.evaluation import generated

SEED = 4


def registered(folder: Path) -> str:
    """The generated LVIS-like set of the test, registered as "ranks"."""
    truth = generated.ground_truth(SEED, federated=True)
    (folder / "truth.json").write_text(json.dumps(truth))
    names = [c["name"] for c in truth["categories"]]
    register_open_vocab_dataset(
        "ranks", folder / "truth.json", folder, base=names[1:], novel=names[:1], evaluator_type="ov_lvis"
    )
    return "ranks"


def images(evaluator) -> list[tuple[dict, dict]]:
    """Inputs and outputs of every image, with masks and proposals."""
    truth = generated.ground_truth(SEED, federated=True)
    found = generated.detections(truth, SEED)
    label = {category: i for i, category in enumerate(evaluator.category_ids)}
    result, size = [], (generated.SIDE, generated.SIDE)
    for image in truth["images"]:
        mine = [d for d in found if d["image_id"] == image["id"]]
        xywh = torch.tensor([d["bbox"] for d in mine]).reshape(-1, 4)
        boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
        scores = torch.tensor([d["score"] for d in mine])
        detections = Instances(size, pred_boxes=boxes, scores=scores)
        detections.pred_classes = torch.tensor([label[d["category_id"]] for d in mine], dtype=torch.int64)
        masks = [torch.from_numpy(generated.box_mask(d["bbox"])) for d in mine]
        detections.pred_masks = torch.stack(masks) if masks else torch.zeros(0, *size, dtype=torch.bool)
        proposals = Instances(size, proposal_boxes=boxes, scores=scores)
        result.append(({"image_id": image["id"]}, {"instances": detections, "proposals": proposals}))
    return result


def evaluate(folder: Path, rank: int, world: int) -> dict:
    """This process's results over its share; the last image is seen by all."""
    evaluator = build_evaluator(registered(folder), folder / "out", lvis_protocols=["standard", "fixed"])
    both = with_recall(evaluator)
    both.reset()
    everything = images(evaluator)
    for i, (given, output) in enumerate(everything):
        if i % world == rank or i == len(everything) - 1:
            both.process([given], [output])
    return both.evaluate()


def main(rank: int, world: int, port: str, folder: str) -> None:
    """One process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    comm.create_local_process_group(world)
    own = Path(folder) / f"rank{rank}"
    own.mkdir()
    results = evaluate(own, rank, world)
    (Path(folder) / f"results{rank}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    mp.start_processes(main, (int(sys.argv[1]), *sys.argv[2:4]), nprocs=int(sys.argv[1]), start_method="fork")
