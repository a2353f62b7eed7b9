"""The evaluator of detectors: collects Detectron2 instances, scores groups of classes, writes what it found.

One code path for OV-COCO, transfer sets without a split and OV-LVIS; they differ by a Protocol.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.utils import comm

from ..data.json_files import read_annotation_file
from ..structures import DataError
from .average_precision import Backend, ClassScores, Shape, best_of, score_detections
from .detection_report import class_table, console_table, group_table, write_csv, write_json
from .predictions import read_predictions, write_predictions

RESULTS_FILE = "coco_instances_results.json"
FORGET_FROM = 2_000_000  # detections in memory from which on those that cannot count are looked for
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Protocol:
    """How a set is scored.

    Args:
        task: the key of the results, e.g. "ov_coco".
        title: said in tables, e.g. "OV-COCO, generalised".
        max_dets: the detections of an image that count: of each class, or with `federated` of all classes together.
            None: no limit.
        max_dets_of_class: the detections of a class over the whole set that count; None: no limit.
        federated: LVIS's rules of which false detections count.
        groups: group name -> (C,) bool, the classes whose mean is reported; "all" holds every class.
    """

    task: str
    title: str
    max_dets: int | None
    max_dets_of_class: int | None = None
    federated: bool = False
    groups: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def limit(self) -> str:
        """How many detections count, in words: "100 an image and class", "300 an image", "10000 a class"."""
        limits = []
        if self.max_dets is not None:
            limits.append(f"{self.max_dets} an image" + ("" if self.federated else " and class"))
        if self.max_dets_of_class is not None:
            limits.append(f"{self.max_dets_of_class} a class")
        return ", ".join(limits) or "no limit"

    def metric_name(self, measure: str, group: str) -> str:
        """ "AP50_novel"; never with a "-", which Detectron2's copy-paste lines would drop."""
        return f"{measure}_{group}"

    def group_of(self, label: int) -> str:
        """The smallest group that a class belongs to, for the table of classes."""
        sizes = [(int(members.sum()), name) for name, members in self.groups.items() if members[label]]
        return min(sizes)[1]


class DetectionEvaluator(DatasetEvaluator):
    """Scores detections (boxes, and masks where the detector gives them) against a COCO or LVIS JSON.

    Several ranks may share the images; an image seen by two of them counts once. Ranks other than 0 return {}.

    Args:
        ground_truth: the content of the annotation file.
        names: C class names, label i of a detection is names[i].
        category_ids: C, the data set's category id of each label.
        protocols: what is reported, each under its own task.
        output_dir: where predictions, tables and results go; nothing is written when None.
        backend: the matching library.
        distributed: gather from all ranks (False: this process alone).
    """

    def __init__(
        self,
        *,
        ground_truth: dict,
        names: Sequence[str],
        category_ids: Sequence[int],
        protocols: Sequence[Protocol],
        output_dir: str | Path | None = None,
        backend: Backend = Backend.FASTER,
        distributed: bool = True,
    ):
        if len(names) != len(category_ids):
            raise DataError(f"{len(names)} class names but {len(category_ids)} category ids; they must pair up.")
        self.ground_truth = ground_truth
        self.names = tuple(names)
        self.category_ids = tuple(category_ids)
        self.protocols = tuple(protocols)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.backend = backend
        self.distributed = distributed
        self.reset()

    def reset(self) -> None:
        """Forget all predictions."""
        self._by_image: dict[int, list[dict]] = {}
        self._held, self._forget_at = 0, FORGET_FROM

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the detections of a batch.

        Args:
            inputs: Detectron2 inputs; "image_id" is read.
            outputs: {"instances": Instances} with pred_boxes (x1, y1, x2, y2) in pixels of the original image,
                scores, pred_classes, and pred_masks (N, H, W) where there are masks.

        Raises:
            DataError: a label that the vocabulary does not have.
        """
        for given, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            if len(instances) and int(instances.pred_classes.max()) >= len(self.names):
                raise DataError(
                    f"Image {given['image_id']} has a detection of label {int(instances.pred_classes.max())}, but the "
                    f"set has {len(self.names)} classes. Set the detector's vocabulary to the set's class names."
                )
            detections = instances_to_coco_json(instances, given["image_id"])
            for detection in detections:
                detection["category_id"] = self.category_ids[detection["category_id"]]
            self._by_image[given["image_id"]] = detections
            self._held += len(detections)
        # Fixed AP wants thousands of detections of an image, more than memory holds for a large set.
        if self._held > self._forget_at and any(p.max_dets_of_class is not None for p in self.protocols):
            self._forget()

    def _forget(self) -> None:
        """Drop the detections that are beyond every protocol's limit already."""
        kept = set()
        for protocol in self.protocols:
            found = list(itertools.chain.from_iterable(self._by_image.values()))
            if protocol.max_dets_of_class is not None:
                found = best_of(found, "category_id", protocol.max_dets_of_class)
            if protocol.max_dets is not None and protocol.federated:
                found = best_of(found, "image_id", protocol.max_dets)
            kept.update(map(id, found))
        self._by_image = {image: [d for d in found if id(d) in kept] for image, found in self._by_image.items()}
        self._held = len(kept)
        self._forget_at = max(FORGET_FROM, 2 * self._held)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{task: {metric: percent}}, and {task + "_masks": ...} when there were masks; {} on ranks other than 0."""
        by_image = self._by_image
        if self.distributed:
            comm.synchronize()
            gathered = comm.gather(by_image, dst=0)
            if not comm.is_main_process():
                return {}
            by_image = {image: found for part in gathered for image, found in part.items()}
        missing = len({image["id"] for image in self.ground_truth["images"]} - set(by_image))
        if missing:
            logger.warning(
                f"{missing} of {len(self.ground_truth['images'])} images were not run; their objects count as missed."
            )
        detections = list(itertools.chain.from_iterable(by_image[image] for image in sorted(by_image)))
        if self.output_dir is not None:
            # Before scoring: whatever happens there, the detector need not run again.
            write_predictions(self.output_dir / RESULTS_FILE, detections)
        return self.evaluate_detections(detections)

    def evaluate_detections(self, detections: Sequence[dict]) -> dict[str, dict[str, float]]:
        """Score detections in COCO's results format, without a model.

        Args:
            detections: as in the saved coco_instances_results.json (the data set's own category ids).
        """
        shapes = [Shape.BOXES]
        if detections and all("segmentation" in detection for detection in detections):
            shapes.append(Shape.MASKS)
        results = {}
        for protocol, shape in itertools.product(self.protocols, shapes):
            scores = score_detections(
                self.ground_truth,
                detections,
                category_ids=self.category_ids,
                shape=shape,
                max_dets=protocol.max_dets,
                max_dets_of_class=protocol.max_dets_of_class,
                backend=self.backend,
                federated=protocol.federated,
            )
            task = protocol.task + ("" if shape is Shape.BOXES else "_masks")
            results[task] = self._report(task, protocol, shape, scores)
        return results

    def evaluate_file(self, path: str | Path) -> dict[str, dict[str, float]]:
        """Score a saved predictions file again, to the same figures as the run that wrote it.

        Raises:
            DataError: the file is no list of detections, or of another data set's images.
        """
        return self.evaluate_detections(read_predictions(path))

    def _report(self, task: str, protocol: Protocol, shape: Shape, scores: ClassScores) -> dict[str, float]:
        """Log and write one task's tables; its metrics."""
        rows = group_table(scores, protocol.groups)
        settings = {
            "protocol": protocol.title,
            "compared": shape.name.lower(),
            "images": len(self.ground_truth["images"]),
            "classes": len(self.names),
            "classes_with_ground_truth": int((~np.isnan(scores.measures[:, 0])).sum()),
            "detections_that_count": protocol.limit,
            "max_detections_per_image": protocol.max_dets,
            "max_detections_per_class": protocol.max_dets_of_class,
            "detections": int(scores.detections.sum()),
            "backend": self.backend.value,
        }
        if protocol.max_dets_of_class is not None:
            few = int((scores.detections < protocol.max_dets_of_class).sum())
            settings["classes_with_fewer_detections_than_the_limit"] = few
            if few:
                logger.warning(
                    f"{protocol.title}: {few} of {len(self.names)} classes have fewer than "
                    f"{protocol.max_dets_of_class} detections. Where the detector could have given more, raise "
                    "TEST.DETECTIONS_PER_IMAGE and lower MODEL.ROI_HEADS.SCORE_THRESH_TEST."
                )
        metrics = {
            protocol.metric_name(measure, group): value
            for group, measures in rows.items()
            for measure, value in measures.items()
        }
        logger.info(
            f"{protocol.title}, {shape.name.lower()}: {len(self.names)} classes, {settings['images']} images, "
            f"detections that count: {protocol.limit}\n" + console_table(rows, protocol.groups)
        )
        if self.output_dir is not None:
            groups = [protocol.group_of(label) for label in range(len(self.names))]
            table = class_table(scores, self.names, groups, {"protocol": task, "detections_that_count": protocol.limit})
            write_csv(self.output_dir / f"{task}_classes.csv", table)
            write_json(self.output_dir / f"{task}_results.json", {"settings": settings, "metrics": metrics})
        return metrics


def category_ids_of(dataset_name: str) -> tuple[int, ...]:
    """The data set's category id of each label, from a registered set's metadata.

    Raises:
        DataError: the metadata's id map does not number the classes 0 .. C - 1.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("thing_dataset_id_to_contiguous_id") is None:
        DatasetCatalog.get(dataset_name)  # the map is known once the annotations are read
    label_of = metadata.thing_dataset_id_to_contiguous_id
    if sorted(label_of.values()) != list(range(len(metadata.thing_classes))):
        raise DataError(
            f"{dataset_name}: thing_dataset_id_to_contiguous_id must map to 0 .. {len(metadata.thing_classes) - 1}, "
            f"each once; it maps to {sorted(label_of.values())[:10]} ... Register the set again."
        )
    id_of = {label: category for category, label in label_of.items()}
    return tuple(id_of[label] for label in range(len(id_of)))


def read_annotations(dataset_name: str) -> dict:
    """The content of a registered set's annotation file."""
    return read_annotation_file(MetadataCatalog.get(dataset_name).json_file)
