"""The evaluator of detectors: collects Detectron2 instances, scores groups of classes, writes the results.

One code path for OV-COCO, transfer sets without a split and OV-LVIS; they differ by a Protocol.
"""

import itertools
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json

from ...data.datasets import entries
from ...structures import DataError
from ...structures.files import write_json
from ..scoring.average_precision import MEASURES, Backend, ClassScores, Shape, score_detections
from ..scoring.plausibility import warn_of_boxes, with_masks
from ..scoring.tables import Detections, read_truth
from .prediction_files import read_predictions, write_predictions
from .prediction_store import PredictionStore
from .protocol import Protocol, countable
from .report import class_table, console_table, group_table, write_csv

RESULTS_FILE = "coco_instances_results.json"
logger = logging.getLogger(__name__)


class DetectionEvaluator(DatasetEvaluator):
    """Scores detections (boxes, and masks where the detector gives them) against a COCO or LVIS JSON.

    Several ranks may share the images; an image seen by two of them counts once. Ranks other than 0 return {}.
    With an output folder, predictions go to a log there, one a rank, until the results file holds them all; without,
    they stay in memory.

    Args:
        ground_truth: The content of the annotation file.
        names: C class names, label i of a detection is names[i].
        category_ids: C, the data set's category id of each label.
        protocols: Protocols to report, each under its own task.
        output_dir: Folder of predictions, tables and results; None writes nothing.
        backend: Implementation of the matching.
        distributed: True to gather from all ranks, False for this process only.
    """

    def __init__(
        self,
        *,
        ground_truth: dict,
        names: Sequence[str],
        category_ids: Sequence[int],
        protocols: Sequence[Protocol],
        output_dir: str | Path | None = None,
        backend: Backend = Backend.COLUMNS,
        distributed: bool = True,
    ):
        if len(names) != len(category_ids):
            raise DataError(f"{len(names)} class names but {len(category_ids)} category ids; they must pair up.")
        self.ground_truth = entries.checked_content(ground_truth)
        self.names = tuple(names)
        self.category_ids = tuple(category_ids)
        self.protocols = tuple(protocols)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.backend = backend
        self.distributed = distributed
        self._store = PredictionStore(self.output_dir, countable=countable(protocols), distributed=distributed)

    def begin(self, origin: str, *, resume: bool = False) -> frozenset[int]:
        """Identify the maker of the next predictions, before `reset`; see PredictionStore.begin."""
        finished = self._store.begin(origin, resume=resume)
        if resume:
            logger.info(f"{len(finished)} of {len(self.ground_truth['images'])} images were predicted already.")
        return finished

    def reset(self) -> None:
        """Forget all predictions but those that `begin` has resumed since the last `reset`."""
        self._store.reset()

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the detections of a batch.

        Args:
            inputs: Detectron2 inputs; "image_id" is read.
            outputs: {"instances": Instances} with pred_boxes (x1, y1, x2, y2) in pixels of the original image,
                scores, pred_classes, and pred_masks (N, H, W) where there are masks.

        Raises:
            DataError: A label that the vocabulary does not have.
        """
        for given, output in zip(inputs, outputs, strict=True):
            instances = output["instances"].to("cpu")
            strange = [label for label in instances.pred_classes.tolist() if not 0 <= label < len(self.names)]
            if strange:
                raise DataError(
                    f"Image {given['image_id']} has a detection of label {strange[0]}, but the set has "
                    f"{len(self.names)} classes. Set the detector's vocabulary to the set's class names."
                )
            results = instances_to_coco_json(instances, given["image_id"])
            for result in results:
                result["category_id"] = self.category_ids[result["category_id"]]
            try:
                found = Detections.from_results(results)
            except DataError as error:
                raise DataError(f"The model's output for image {given['image_id']}: {error}") from error
            self._store.add(given["image_id"], found)

    def check(self, *, masks: bool = False) -> None:
        """Check that the set can be scored, before any prediction is made.

        Args:
            masks: The detector gives masks. Objects without one are named in a warning.

        Raises:
            DataError: The annotation file lacks something that the protocols need.
        """
        for federated in {protocol.federated for protocol in self.protocols}:
            truth = read_truth(self.ground_truth, self.category_ids, federated=federated)
        if not len(truth.keys):
            logger.warning("The set has no object of its classes: every average precision will be nan.")
        elif masks and self._objects_have_masks():
            masked = with_masks(truth)
            for row in range(len(masked.keys)):
                masked.require_mask(row)

    def metric_names(self, *, masks: bool = False) -> set[str]:
        """Names "task/metric" of what `evaluate` gives; with `masks` those of masks too."""
        return {
            f"{protocol.task}{suffix}/{protocol.metric_name(measure, group)}"
            for protocol in self.protocols
            for suffix in ("", "_masks")[: 1 + masks]
            for measure in MEASURES
            for group in protocol.groups
        }

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{task: {metric: percent}}, and {task + "_masks": ...} when there were masks; {} on ranks other than 0."""
        predictions = self._store.gathered()
        if predictions is None:
            self._store.forget()
            return {}
        missing = len({image["id"] for image in self.ground_truth["images"]} - set(predictions.image_ids.tolist()))
        if missing:
            logger.warning(
                f"{missing} of {len(self.ground_truth['images'])} images were not run; their objects count as missed."
            )
        if self.output_dir is not None:
            # Before scoring: whatever happens there, the detector need not run again.
            write_predictions(self.output_dir / RESULTS_FILE, predictions.detections)
        self._store.forget()
        return self.evaluate_detections(predictions.detections)

    def evaluate_detections(self, detections: Detections | Iterable[dict]) -> dict[str, dict[str, float]]:
        """Score detections in COCO's results format, without a model.

        Args:
            detections: Entries of a coco_instances_results.json (with the data set's own category ids).
        """
        if not isinstance(detections, Detections):
            detections = Detections.from_results(detections)
        shapes = [Shape.BOXES, *([Shape.MASKS] if self._masks_are_scored(detections) else [])]
        images = self.ground_truth["images"]
        warn_of_boxes(
            detections,
            np.array([image["id"] for image in images], dtype=np.int64),
            np.array([(i.get("height") or 0, i.get("width") or 0) for i in images], np.int64).reshape(-1, 2),
        )
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

    def _masks_are_scored(self, detections: Detections) -> bool:
        """True if masks can be compared; a warning names what is left out."""
        if detections.masks is None or not len(detections):
            return False
        absent = [row for row, mask in enumerate(detections.masks) if mask is None]
        if absent:
            logger.warning(
                f"Masks are not scored, only boxes: {len(absent)} of {len(detections)} detections have no "
                f"'segmentation', the first is entry {absent[0]}. Write a mask for each, or for none."
            )
            return False
        return self._objects_have_masks()

    def _objects_have_masks(self) -> bool:
        """True if objects have masks to compare with; a warning names those that have none."""
        wanted = set(self.category_ids)
        objects = [a for a in self.ground_truth["annotations"] if a["category_id"] in wanted]
        bare = sum(not annotation.get("segmentation") for annotation in objects)
        if bare == len(objects) > 0:
            logger.warning("Masks are not scored, only boxes: no object of the set has a 'segmentation'.")
            return False
        if bare:
            logger.warning(
                f"{bare} of {len(objects)} objects have no 'segmentation'. Masks are scored over the others, where "
                "detections of these objects' classes in their images are not false. Boxes are scored over all."
            )
        return True

    def evaluate_file(self, path: str | Path) -> dict[str, dict[str, float]]:
        """Score a saved predictions file again, to the same figures as the run that wrote it.

        Raises:
            DataError: The file is not a list of detections, or has another data set's images.
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
            write_json(self.output_dir / f"{task}_results.json", {"settings": settings, "metrics": metrics}, indent=2)
        return metrics


def category_ids_of(dataset_name: str) -> tuple[int, ...]:
    """The data set's category id of each label, from a registered set's metadata.

    Raises:
        DataError: The metadata's id map does not number the classes 0 .. C - 1.
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
    """The content of a registered set's annotation file, checked and repaired; see `denserc.data.datasets.entries`."""
    metadata = MetadataCatalog.get(dataset_name)
    return entries.read_annotations(metadata.json_file, metadata.get("image_root"), bare=True)
