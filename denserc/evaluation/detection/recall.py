"""Recall of class-agnostic box proposals, for classes with and without box annotations in training."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate
from torchvision.ops import box_iou

from ...data.datasets.entries import checked_content
from ...data.proposals import ProposalLimits, id_key, read_proposals
from ...structures import DataError
from ...structures.files import write_json

TASK = "proposals"
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
LIMITS = (100, 300, 1000)
logger = logging.getLogger(__name__)


def proposal_recall(
    proposals: Mapping[int, torch.Tensor],
    ground_truth: dict,
    *,
    category_ids: Sequence[int],
    limits: Sequence[int] = LIMITS,
) -> dict[str, float]:
    """Average recall over IoU .50:.95 with the first 100, 300 and 1000 proposals of an image.

    Each object is matched to at most one proposal, the best-covered object first, as Detectron2 does.

    Args:
        proposals: Image id -> (P, 4), (x1, y1, x2, y2) in pixels of the original image, best first.
        ground_truth: The content of a COCO instances JSON; crowds are left out.
        category_ids: Classes whose objects are sought, e.g. the novel ones.
        limits: Numbers of proposals.

    Returns:
        {"AR@100": percent, ...}; NaN without objects to find.
    """
    ground_truth, wanted = checked_content(ground_truth), set(category_ids)
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in ground_truth["images"]}
    for annotation in ground_truth["annotations"]:
        if annotation["category_id"] in wanted and not annotation.get("iscrowd", 0):
            x, y, w, h = annotation["bbox"]
            boxes[annotation["image_id"]].append([x, y, x + w, y + h])
    recall = {}
    for limit in limits:
        overlaps = [
            _best_overlaps(proposals.get(image, torch.zeros(0, 4))[:limit], torch.tensor(found, dtype=torch.float32))
            for image, found in boxes.items()
            if found
        ]
        covered = np.concatenate(overlaps) if overlaps else np.zeros(0)
        hit = covered[:, None] >= IOU_THRESHOLDS  # (objects, thresholds)
        recall[f"AR@{limit}"] = 100.0 * float(hit.mean()) if covered.size else float("nan")
    return recall


def _best_overlaps(proposals: torch.Tensor, objects: torch.Tensor) -> np.ndarray:
    """(P, 4) and (G, 4) -> (G,) IoU of the one-to-one matching, zeros for objects left over."""
    overlap = box_iou(proposals.float(), objects)  # (P, G)
    best = np.zeros(len(objects))
    for i in range(min(overlap.shape)):
        value, flat = overlap.flatten().max(dim=0)
        row, column = divmod(int(flat), overlap.shape[1])
        best[i] = float(value)
        overlap[row], overlap[:, column] = -1.0, -1.0
    return best


class ProposalRecallEvaluator(DatasetEvaluator):
    """{"proposals": {"AR@100_novel", "AR@300_novel", ..., "AR@1000_all"}}: what bounds every detection.

    Several ranks may share the images. Ranks other than 0 return {}.

    Args:
        ground_truth: The content of the annotation file.
        category_ids: C, the data set's category id of each label.
        groups: Group name -> (C,) bool, whose objects are sought, as in a detection Protocol.
        output_dir: Folder for proposals_results.json; None writes nothing.
        distributed: True to gather from all ranks, False for this process only.
    """

    def __init__(
        self,
        *,
        ground_truth: dict,
        category_ids: Sequence[int],
        groups: Mapping[str, np.ndarray],
        output_dir: str | Path | None = None,
        distributed: bool = True,
    ):
        self.ground_truth = checked_content(ground_truth)
        self.category_ids = tuple(category_ids)
        self.groups = dict(groups)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.distributed = distributed
        self.reset()

    def reset(self) -> None:
        """Forget all proposals."""
        self._by_image: dict[int, np.ndarray] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the proposals of a batch: {"proposals": Instances} with proposal_boxes in pixels of the original image
        and scores.

        Raises:
            DataError: The model gives no proposals.
        """
        for given, output in zip(inputs, outputs, strict=True):
            if "proposals" not in output:
                raise DataError("The model gives no 'proposals' to measure; set TEST.PROPOSAL_RECALL to False.")
            proposals = output["proposals"].to("cpu")
            best = proposals.scores.argsort(descending=True, stable=True)[: max(LIMITS)]
            self._by_image[given["image_id"]] = proposals.proposal_boxes.tensor[best].float().numpy()

    def metric_names(self) -> set[str]:
        """Names "task/metric" of what `evaluate` gives."""
        return {f"{TASK}/AR@{limit}_{group}" for limit in LIMITS for group in self.groups}

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Compute the recall of the processed images; {} on ranks other than 0."""
        by_image = self._by_image
        if self.distributed:
            comm.synchronize()
            gathered = comm.gather(by_image, dst=0)
            if not comm.is_main_process():
                return {}
            by_image = {image: boxes for part in gathered for image, boxes in part.items()}
        return self.evaluate_boxes({image: torch.from_numpy(boxes) for image, boxes in by_image.items()})

    def evaluate_file(self, path: str | Path) -> dict[str, dict[str, float]]:
        """The recall of a proposals file (TEST.PROPOSALS.FILE), whose boxes are rounded to 1/100 pixel.

        Raises:
            DataError: The file cannot be read, or names no image of this set.
        """
        table = read_proposals(path, ProposalLimits(min_side=0.0, max_side=math.inf, top_k=max(LIMITS)))
        boxes = {}
        for image in self.ground_truth["images"]:
            first, end = table.spans.get(id_key(image["id"]), (0, 0))
            if end > first:
                boxes[image["id"]] = torch.from_numpy(table.boxes[first:end])
        if not boxes:
            raise DataError(f"The proposals {path} are of {len(table.spans)} images, none of them in this data set.")
        return self.evaluate_boxes(boxes)

    def evaluate_boxes(self, proposals: Mapping[int, torch.Tensor]) -> dict[str, dict[str, float]]:
        """The recall of given proposals, see `proposal_recall`; logs and writes the table."""
        metrics, rows = {}, []
        for group, members in self.groups.items():
            wanted = [category for category, member in zip(self.category_ids, members, strict=True) if member]
            recall = proposal_recall(proposals, self.ground_truth, category_ids=wanted)
            metrics.update({f"{name}_{group}": value for name, value in recall.items()})
            rows.append([group, len(wanted), *recall.values()])
        settings = {
            "protocol": "average recall of proposals over IoU .50:.95, class-agnostic, one proposal for one object",
            "images": len(self.ground_truth["images"]),
            "images_with_proposals": len(proposals),
            "classes": len(self.category_ids),
            "most_proposals_of_an_image": max(map(len, proposals.values()), default=0),
        }
        logger.info(
            f"Proposals, {settings['protocol']}: {settings['classes']} classes, {settings['images']} images, at most "
            f"{settings['most_proposals_of_an_image']} proposals of an image\n"
            + tabulate(
                rows, ["group", "classes", *(f"AR@{limit}" for limit in LIMITS)], tablefmt="pipe", floatfmt=".2f"
            )
        )
        if self.output_dir is not None:
            write_json(self.output_dir / f"{TASK}_results.json", {"settings": settings, "metrics": metrics}, indent=2)
        return {TASK: metrics}
