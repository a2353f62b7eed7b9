"""The evaluator of semantic segmentation: label maps against label files, predictions on disk as they come.

Shape letters: C scored classes, T classes that the model distinguishes, (H, W) pixels of a label file.

Two treatments of absent classes exist, and they differ much where many classes have no pixel (PASCAL-Context 459: 14.65
against about 19 mIoU). They are protocols here, and every table names its own.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from tabulate import tabulate

from ..data.images.labels import read_labels, write_labels
from ..structures import ConfigurationError, DataError, choose
from ..structures.files import write_json, write_text
from .detection.report import write_csv
from .scoring.confusion import AbsentClasses, Cells, ConfusionCounter, SegmentationScores, confusion_matrix

logger = logging.getLogger(__name__)

FOLDER = "predictions"
_ORIGIN = "origin.json"
_METRICS = ("mIoU", "fwIoU", "mACC", "pACC")
_SPLIT_METRICS = ("mIoU_seen", "mIoU_unseen", "hIoU", "mACC_seen", "mACC_unseen")


class SegmentationEvaluator(DatasetEvaluator):
    """Scores label maps, or scores of which the largest one counts.

    Several ranks may share the images; an image of two of them counts once. Ranks other than 0 return {}. With an
    output folder, each prediction is on disk (predictions/<image id>.png, of scored classes) when `process` returns,
    so that an interrupted evaluation can be resumed, and scored again without a model.

    Args:
        label_files: Image id -> its label file.
        names: C scored classes.
        ignore_label: Value of the label files that is not scored.
        prediction_labels: Scored class of each label that a model gives: of its T names, and perhaps of T, which is
            "none of them"; None for the identity.
        novel: Names that training has not used; if there are any, metrics are split into seen and unseen.
        protocols: See AbsentClasses.
        output_dir: Folder of predictions, tables and results; None writes nothing.
        distributed: True to gather from all ranks, False for this process only.
    """

    reads_labels = True  # scores of all classes need not be made for it, see OpenVocabularyModel.best_labels

    def __init__(
        self,
        *,
        label_files: Mapping[Any, str],
        names: Sequence[str],
        ignore_label: int,
        prediction_labels: Sequence[int] | None = None,
        novel: Iterable[str] = (),
        protocols: Sequence[AbsentClasses | str] = (AbsentClasses.PRESENT,),
        output_dir: str | Path | None = None,
        distributed: bool = True,
    ):
        self.label_files = dict(label_files)
        self.names = tuple(names)
        labels = range(len(self.names)) if prediction_labels is None else prediction_labels
        self.prediction_labels = np.array(labels, dtype=np.uint8 if len(self.names) <= 256 else np.uint16)
        self._same_labels = (self.prediction_labels == np.arange(len(self.prediction_labels))).all()
        self.novel = frozenset(novel)
        self.protocols = tuple(choose(AbsentClasses, one, "TEST.SEM_SEG_PROTOCOLS") for one in protocols)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.distributed = distributed
        self._counter = ConfusionCounter(len(self.names), ignore_label)
        self._cells: dict[Any, Cells] = {}
        self._missed: dict[Any, np.ndarray] = {}  # (C,) pixels of images that could not be read
        self._finished: frozenset = frozenset()
        self._origin, self._resumed = "", False

    @classmethod
    def of_dataset(cls, name: str, output_dir: str | Path | None = None, **options) -> "SegmentationEvaluator":
        """The evaluator of a registered set, by Detectron2's metadata and those of `denserc.data.datasets.semantic`.

        Raises:
            DataError: The set's files are absent.
        """
        records, metadata = DatasetCatalog.get(name), MetadataCatalog.get(name)
        return cls(
            label_files={
                record.get("image_id", record["file_name"]): record["sem_seg_file_name"] for record in records
            },
            names=metadata.stuff_classes,
            ignore_label=metadata.ignore_label,
            prediction_labels=metadata.get("prediction_labels"),
            novel=metadata.get("novel_classes", ()),
            output_dir=output_dir,
            **options,
        )

    def begin(self, origin: str, *, resume: bool = False) -> frozenset:
        """Name what makes the next predictions, before `reset`; with `resume` those that it has made are kept.

        Args:
            origin: Weights, vocabulary and settings in a short text; all processes give the same.
            resume: Continue after the predictions that an interrupted evaluation left in the output folder.

        Returns:
            The ids of the images that need not be run again.

        Raises:
            ConfigurationError: The predictions in the folder are of another origin.
        """
        self._origin, self._resumed, self._finished = origin, False, frozenset()
        if self.output_dir is None or not resume:
            return frozenset()
        made_by = self._read_origin()
        if made_by is not None and made_by != origin:
            raise ConfigurationError(
                f"{self.output_dir / FOLDER} has predictions of other weights, another vocabulary or other settings "
                f"({made_by!r} made them, this is {origin!r}). Set TEST.RESUME_PREDICTIONS to False to start anew, or "
                "use another OUTPUT_DIR."
            )
        self._resumed = made_by is not None
        finished = [image for image in self.label_files if self._resumed and self._path(image).is_file()]
        if self.distributed:  # no process writes before all have looked
            finished = comm.all_gather(finished)[0]
        self._finished = frozenset(finished)
        logger.info("%d of %d images were predicted already.", len(finished), len(self.label_files))
        return self._finished

    def reset(self) -> None:
        """Forget all predictions but those that `begin` has resumed since the last `reset`."""
        self._cells, self._missed = {}, {}
        if not self._resumed:
            self._finished = frozenset()
            if self.output_dir is not None and self._is_main():
                self._clear()
            if self.distributed:
                comm.synchronize()
        self._resumed = False

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Take the predictions of a batch.

        Args:
            inputs: Detectron2 inputs; "image_id" (or else "file_name") is read.
            outputs: {"sem_seg": (T or T + 1, H, W) scores, or (H, W) labels}, in the size of the label file.

        Raises:
            DataError: An image of another set, a label that the set does not have, or another size.
        """
        for given, output in zip(inputs, outputs, strict=True):
            image = given.get("image_id", given.get("file_name"))
            if image not in self.label_files:
                raise DataError(f"Image {image!r} is not of this set of {len(self.label_files)} images.")
            predicted = self._classes_of(output["sem_seg"], image)
            self._cells[image] = self._score(image, predicted)
            if self.output_dir is not None:
                write_labels(self._path(image), predicted)

    def check(self, *, masks: bool = False) -> None:
        """Check that the set can be scored: its first label file is read.

        Args:
            masks: Not used.

        Raises:
            DataError: The label file cannot be read, or has values of no class.
        """
        if not self.label_files:
            raise DataError("The set has no label files.")
        image, path = next(iter(self.label_files.items()))
        self._score(image, np.zeros_like(read_labels(path), dtype=self.prediction_labels.dtype))

    def metric_names(self, *, masks: bool = False) -> set[str]:
        """Names "task/metric" of what `evaluate` gives."""
        names = [*_METRICS, *(_SPLIT_METRICS if self.novel & set(self.names) else ())]
        return {f"{protocol.task}/{name}" for protocol in self.protocols for name in names}

    def miss(self, given: dict) -> None:
        """Take an image that could not be read: all of its labeled pixels count as missed.

        Args:
            given: Record of the image; "image_id" (or else "file_name") is read.

        Raises:
            DataError: Its label file cannot be read, or has values of no class.
        """
        image = given.get("image_id", given.get("file_name"))
        self._missed[image] = self._counter.missed(read_labels(self.label_files[image]))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """{task: {metric: percent}} of each protocol; {} on ranks other than 0."""
        rank, ranks = (comm.get_rank(), comm.get_world_size()) if self.distributed else (0, 1)
        for image in sorted(self._finished, key=str)[rank::ranks]:
            self._cells[image] = self._score(image, _read_prediction(image, self._path(image)))
        cells, missed = self._cells, self._missed
        if self.distributed:
            parts = comm.gather((cells, missed), dst=0)
            if not comm.is_main_process():
                return {}
            cells = {image: one for part, _ in parts for image, one in part.items()}
            missed = {image: one for _, part in parts for image, one in part.items()}
        return self._evaluate(cells, missed)

    def evaluate_folder(self, folder: str | Path | None = None) -> dict[str, dict[str, float]]:
        """Score saved predictions again, to the figures of the run that wrote them.

        Args:
            folder: Folder with a label map per image, as `predictions` of an output folder; None for this evaluator's.

        Raises:
            DataError: The folder has no prediction of this set.
        """
        folder = self.output_dir / FOLDER if folder is None else Path(folder)
        files = {image: _prediction_file(folder, image) for image in self.label_files}
        present = {image: file for image, file in files.items() if file.is_file()}
        cells = {image: self._score(image, _read_prediction(image, file)) for image, file in present.items()}
        if not cells:
            raise DataError(
                f"{folder} has no predictions of this set; expected files such as {next(iter(files.values()))}."
            )
        return self._evaluate(cells)

    def evaluate_file(self, path: str | Path) -> dict[str, dict[str, float]]:
        """As DetectionEvaluator's; predictions of this kind are a folder, see `evaluate_folder`."""
        return self.evaluate_folder(path)

    def _classes_of(self, output: torch.Tensor, image: Any) -> np.ndarray:
        """Scores or labels of the model -> (H, W) scored classes, uint8 or uint16."""
        if output.ndim not in (2, 3) or (output.ndim == 2 and output.is_floating_point()):
            raise DataError(
                f"Image {image}: 'sem_seg' must be (T, H, W) scores or (H, W) labels; got {tuple(output.shape)} "
                f"{output.dtype}."
            )
        labels = output.argmax(dim=0) if output.ndim == 3 else output
        if output.ndim == 3 and output.gather(0, labels[None]).isnan().any():  # of scores with a nan, it is the largest
            raise DataError(f"Image {image}: scores of the model are nan. Its weights or its arithmetic overflowed.")
        labels = labels.cpu().numpy()
        known = len(self.prediction_labels)
        count = len(output) if output.ndim == 3 else int(labels.max(initial=0)) + 1
        if count > known or (labels.size and labels.min() < 0):
            raise DataError(
                f"Image {image}: the model distinguishes labels up to {count - 1}, but the set knows {known}. Set the "
                "model's vocabulary to the set's (use_dataset)."
            )
        if self._same_labels:
            return labels.astype(self.prediction_labels.dtype)
        return self.prediction_labels.take(labels)

    def _score(self, image: Any, predicted: np.ndarray) -> Cells:
        try:
            if predicted.size and int(predicted.max()) >= len(self.names):
                raise DataError(f"The prediction has class {predicted.max()}, of {len(self.names)}.")
            return self._counter.count(predicted, read_labels(self.label_files[image]))
        except DataError as error:
            raise DataError(f"Image {image}, {self.label_files[image]}: {error}") from error

    def _evaluate(
        self, cells: Mapping[Any, Cells], missed: Mapping[Any, np.ndarray] | None = None
    ) -> dict[str, dict[str, float]]:
        missed = missed or {}
        missing = len(self.label_files) - len(cells) - len(missed)
        if missing:
            logger.warning("%d of %d images were not run and are not scored.", missing, len(self.label_files))
        scores = SegmentationScores.of(confusion_matrix(cells.values(), len(self.names)))
        if missed:
            logger.warning("%d images could not be read; all of their labeled pixels count as missed.", len(missed))
            scores = replace(scores, truth=scores.truth + sum(missed.values()))
        count = len(cells) + len(missed)
        return {protocol.task: self._report(protocol, scores, count) for protocol in self.protocols}

    def _report(self, protocol: AbsentClasses, scores: SegmentationScores, images: int) -> dict[str, float]:
        """Log and write the tables of one protocol; its metrics."""
        metrics = {
            "mIoU": scores.mean_iou(protocol),
            "fwIoU": scores.frequency_weighted_iou,
            "mACC": scores.mean_accuracy(),
            "pACC": scores.pixel_accuracy,
        }
        novel = np.array([name in self.novel for name in self.names])
        if novel.any():
            seen, unseen = (scores.mean_iou(protocol, members) for members in (~novel, novel))
            metrics |= {"mIoU_seen": seen, "mIoU_unseen": unseen}
            metrics["hIoU"] = 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
            metrics |= {"mACC_seen": scores.mean_accuracy(~novel), "mACC_unseen": scores.mean_accuracy(novel)}
        present = scores.truth > 0
        settings = {
            "protocol": protocol.value,
            "rule": protocol.title,
            "images": images,
            "classes": len(self.names),
            "classes_with_ground_truth": int(present.sum()),
            "absent_classes_predicted": int((~present & (scores.predicted > 0)).sum()),
            "ignore_label": self._counter.ignore_label,
        }
        table = tabulate([list(metrics.values())], headers=list(metrics), tablefmt="pipe", floatfmt=".2f")
        logger.info(
            "Semantic segmentation, %s: %d images, %d of %d classes have ground truth, %d others were predicted\n%s",
            protocol.title, images, settings["classes_with_ground_truth"], len(self.names),
            settings["absent_classes_predicted"], table,
        )  # fmt: skip
        if self.output_dir is not None:
            rows = self._class_rows(protocol, scores, novel)
            write_csv(self.output_dir / f"{protocol.task}_classes.csv", rows)
            content = {"settings": settings, "metrics": metrics}
            write_json(self.output_dir / f"{protocol.task}_results.json", content, indent=2)
        return metrics

    def _class_rows(self, protocol: AbsentClasses, scores: SegmentationScores, novel: np.ndarray) -> list[dict]:
        """One row per class; a measure that is not averaged is an empty cell."""
        iou = scores.iou
        if protocol is AbsentClasses.PRESENT_OR_PREDICTED:
            iou = np.where((scores.truth == 0) & (scores.predicted > 0), 0.0, iou)
        groups = np.where(novel, "unseen", "seen") if novel.any() else [""] * len(self.names)
        return [
            {
                "class": name,
                "label": label,
                "group": str(groups[label]),
                "IoU": "" if np.isnan(iou[label]) else f"{100 * iou[label]:.4f}",
                "accuracy": "" if np.isnan(scores.accuracy[label]) else f"{100 * scores.accuracy[label]:.4f}",
                "pixels": int(scores.truth[label]),
                "predicted_pixels": int(scores.predicted[label]),
                "correct_pixels": int(scores.correct[label]),
                "protocol": protocol.value,
            }
            for label, name in enumerate(self.names)
        ]

    def _is_main(self) -> bool:
        return not self.distributed or comm.is_main_process()

    def _path(self, image: Any) -> Path:
        return _prediction_file(self.output_dir / FOLDER, image)

    def _read_origin(self) -> str | None:
        """Maker of the predictions in the folder; None without predictions that can be resumed."""
        try:
            return json.loads((self.output_dir / FOLDER / _ORIGIN).read_text(encoding="utf-8"))["origin"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _clear(self) -> None:
        """Remove former predictions of this set, and name what makes the next."""
        (self.output_dir / FOLDER / _ORIGIN).unlink(missing_ok=True)
        for image in self.label_files:
            self._path(image).unlink(missing_ok=True)
        write_text(self.output_dir / FOLDER / _ORIGIN, json.dumps({"origin": self._origin}) + "\n")


def _read_prediction(image: Any, file: Path) -> np.ndarray:
    """A label map that an evaluation wrote."""
    try:
        return read_labels(file)
    except DataError as error:
        raise DataError(f"The prediction of image {image}: {error} Delete it to predict the image anew.") from error


def _prediction_file(folder: Path, image: Any) -> Path:
    """Path of an image's prediction: below the folder, for any id."""
    parts = [quote(part, safe=" ") for part in str(image).split("/") if part not in ("", ".", "..")]
    return folder.joinpath(*parts[:-1], f"{parts[-1] if parts else '_'}.png")
