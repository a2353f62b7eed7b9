"""Evaluators of registered data sets, and the evaluation of a dense model by a config."""

import dataclasses
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.utils.events import get_event_storage, has_event_storage

from ..data.vocabulary.prompts import template_set
from ..data.vocabulary.text_embeddings import embed_names
from ..structures import ConfigurationError, DataError
from ..structures.paths import absent_files, require_writable
from ..structures.records import first_of
from .detection.evaluator import DetectionEvaluator
from .detection.open_vocabulary import LvisProtocol, OvCocoEvaluator, OvLvisEvaluator
from .detection.recall import ProposalRecallEvaluator
from .regions.classification import measure_regions
from .regions.report import TASK
from .segmentation import AbsentClasses, SegmentationEvaluator

logger = logging.getLogger(__name__)


EVALUATORS = {"ov_coco": OvCocoEvaluator, "ov_lvis": OvLvisEvaluator}


def build_evaluator(
    dataset_name: str,
    output_dir: str | Path | None = None,
    *,
    lvis_protocols: Sequence[LvisProtocol | str] = (LvisProtocol.STANDARD,),
    sem_seg_protocols: Sequence[AbsentClasses | str] = (AbsentClasses.PRESENT,),
    **options,
) -> DetectionEvaluator | SegmentationEvaluator:
    """The evaluator that the set's metadata names as `evaluator_type`.

    Args:
        dataset_name: A registered set.
        output_dir: Folder to write to; None writes nothing.
        lvis_protocols: Protocols of "ov_lvis" sets.
        sem_seg_protocols: Protocols of "sem_seg" sets.
        options: Other arguments of the evaluator, e.g. max_dets, distributed.

    Raises:
        ConfigurationError: An evaluator type that does not exist.
    """
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind == "sem_seg":
        return SegmentationEvaluator.of_dataset(dataset_name, output_dir, protocols=sem_seg_protocols, **options)
    if kind not in EVALUATORS:
        raise ConfigurationError(
            f"{dataset_name} asks for the evaluator {kind!r}; known are {sorted([*EVALUATORS, 'sem_seg'])}. Set "
            "`evaluator_type` where the set is registered."
        )
    if kind == "ov_lvis":
        options["protocols"] = lvis_protocols
    return EVALUATORS[kind](dataset_name, output_dir, **options)


def recall_evaluator(detections: DetectionEvaluator) -> ProposalRecallEvaluator:
    """An evaluator of proposals on the same set, in the same groups of classes and with the same output folder."""
    return ProposalRecallEvaluator(
        ground_truth=detections.ground_truth,
        category_ids=detections.category_ids,
        groups=detections.protocols[0].groups,
        output_dir=detections.output_dir,
        distributed=detections.distributed,
    )


def with_recall(detections: DetectionEvaluator) -> DatasetEvaluators:
    """Both at once: detections and the proposals that they come from."""
    return _WithRecall([detections, recall_evaluator(detections)])


class _WithRecall(DatasetEvaluators):
    """Detections, whose questions before the evaluation are asked, and proposals."""

    def check(self, *, masks: bool = False) -> None:
        """As DetectionEvaluator's."""
        self._evaluators[0].check(masks=masks)

    def metric_names(self, *, masks: bool = False) -> set[str]:
        """As DetectionEvaluator's, and the recalls."""
        detections, recall = self._evaluators
        return detections.metric_names(masks=masks) | recall.metric_names()


def check_region_sets(cfg: CfgNode) -> None:
    """Check that `evaluate_dense_model` will be able to evaluate each set of DATASETS.TEST; reads no picture.

    Raises:
        ConfigurationError, DataError: It will not; the message names the set and the remedy.
    """
    for name in cfg.DATASETS.TEST:
        where = f"{name} of DATASETS.TEST cannot be evaluated:"
        if name not in DatasetCatalog:
            raise ConfigurationError(f"{where} it is not registered.")
        entries = DatasetCatalog.get(name)
        if not hasattr(entries, "classes"):
            raise ConfigurationError(
                f"{where} region classification needs a panoptic set, such as coco_2017_panoptic_val_regions, and this "
                "is of another kind."
            )
        if not len(entries):
            raise DataError(f"{where} it has no images.")
        absent = absent_files(entries.file_names) if hasattr(entries, "file_names") else []
        if absent:
            raise DataError(f"{where} {len(absent)} of {len(entries)} images do not exist: {first_of(absent)}.")
        entries[0]  # its segments fit its picture's size
        require_writable(Path(cfg.OUTPUT_DIR) / "inference" / name)


def evaluate_dense_model(cfg: CfgNode, model) -> dict[str, dict[str, float]]:
    """The region classification of a dense model on each of DATASETS.TEST.

    Writes OUTPUT_DIR/inference/<set>/region_classification_classes.csv and .._results.json; during a training their
    names carry the step, "region_classification_step0000500_..", so that no evaluation replaces another.

    Args:
        cfg: See evaluation/config.py.
        model: Model with `encoder` (a DenseEncoder) and `text` (its text tower).

    Returns:
        {"region_classification": metrics}; with several sets, "<set>/region_classification" for each.
    """
    options, results = cfg.TEST.REGIONS, {}
    templates = cfg.MODEL.VOCABULARY.TEMPLATES
    tower = model.encoder.tower
    stem = f"{TASK}_step{get_event_storage().iter + 1:07d}" if has_event_storage() else TASK
    for name in cfg.DATASETS.TEST:
        entries = DatasetCatalog.get(name)
        report = measure_regions(
            model.encoder,
            embed_names(model.text, entries.classes, template_set(templates)),
            entries,
            names=entries.classes,
            input_size=cfg.TEST.INPUT_SIZE or cfg.INPUT.SIZE,
            normalize=cfg.MODEL.ENCODER.POOLED_MAP == "normalized",
            crop_encoder=tower.encode_image if options.CROPS else None,
            crop_size=tower.native_size,
            thing_crop_scale=options.THING_CROP_SCALE,
            batch_size=cfg.TEST.IMS_PER_PROCESS,
            device=next(tower.parameters()).device,
            progress=sys.stderr.isatty(),
            fingerprint=model.text.fingerprint(),
            max_unreadable=cfg.DATALOADER.MAX_UNREADABLE,
        )
        if report is None:
            continue
        report = dataclasses.replace(report, protocol={"data_set": name, "templates": templates, **report.protocol})
        logger.info(report.summary())
        report.write(Path(cfg.OUTPUT_DIR) / "inference" / name, stem)
        results[TASK if len(cfg.DATASETS.TEST) == 1 else f"{name}/{TASK}"] = report.metrics
    return results


def detection_evaluators(cfg: CfgNode) -> Callable[[str, str], DatasetEvaluator]:
    """Build the factory (registered set, output folder) -> evaluator of the detector's engine, by TEST's keys.

    Raises:
        ConfigurationError: The recall of proposals is asked of a resumed evaluation, which has not kept them.
    """
    if cfg.TEST.PROPOSAL_RECALL and cfg.TEST.RESUME_PREDICTIONS:
        raise ConfigurationError(
            "TEST.PROPOSAL_RECALL needs the proposals of all images, and TEST.RESUME_PREDICTIONS keeps detections "
            "alone. Switch one of them off."
        )

    def make(dataset_name: str, output_dir: str) -> DatasetEvaluator:
        evaluator = build_evaluator(
            dataset_name,
            output_dir,
            lvis_protocols=cfg.TEST.LVIS_PROTOCOLS,
            sem_seg_protocols=cfg.TEST.SEM_SEG_PROTOCOLS,
        )
        return with_recall(evaluator) if cfg.TEST.PROPOSAL_RECALL else evaluator

    return make
