"""Questions to every test set before anything expensive runs: will its evaluation work?

Registration, annotation file, pictures, label files, classes, text embeddings, evaluator, metric of TEST.BEST and
output folder are looked at. No picture is read and no name is embedded, so it takes as long as an evaluation takes to
start: seconds.
"""

import logging
import os
import time
from collections.abc import Callable, Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ..data.datasets.registration import dataset_vocabulary
from ..data.vocabulary.text_embeddings import load_text_embeddings
from ..structures import ConfigurationError, DataError, choose
from ..structures.paths import absent_files, require_writable
from ..structures.records import first_of
from .vocabulary import Synonyms

logger = logging.getLogger(__name__)


def check_test_sets(cfg: CfgNode, evaluator_factory: Callable[[str, str], DatasetEvaluator], *, training: bool) -> None:
    """Check that each set of DATASETS.TEST can be evaluated.

    An evaluator may have `check(masks=...)`, which raises if its set cannot be scored, and `metric_names(masks=...)`.

    Args:
        training: A training follows, for which TEST.BEST matters.

    Raises:
        ConfigurationError, DataError: A set cannot be evaluated; the message names it and the remedy.
    """
    start = time.monotonic()
    for number, name in enumerate(cfg.DATASETS.TEST):
        try:
            _check_set(cfg, name, evaluator_factory, best="" if number or not training else cfg.TEST.BEST)
        except (ConfigurationError, DataError) as error:
            raise type(error)(f"{name} of DATASETS.TEST cannot be evaluated: {error}") from error
    if cfg.DATASETS.TEST and comm.is_main_process():
        seconds = time.monotonic() - start
        logger.info("The evaluation of %s will work (checked in %.1f s).", ", ".join(cfg.DATASETS.TEST), seconds)


def _check_set(cfg: CfgNode, name: str, evaluator_factory: Callable, *, best: str) -> None:
    vocabulary = dataset_vocabulary(name)
    _check_embeddings(cfg, vocabulary.names)
    records = DatasetCatalog.get(name)
    if not records:
        raise DataError("it has no images.")
    pictures = absent_files(record["file_name"] for record in records)
    if len(pictures) == len(records):
        raise DataError(f"none of its {len(records)} images exists: {first_of(pictures)}. Set its image folder.")
    if pictures:
        logger.warning("%s: %d of %d images do not exist: %s", name, len(pictures), len(records), first_of(pictures))
    labels = absent_files(record["sem_seg_file_name"] for record in records if "sem_seg_file_name" in record)
    if labels:
        raise DataError(f"{len(labels)} of its label files do not exist: {first_of(labels)}. Set its label folder.")
    folder = os.path.join(cfg.OUTPUT_DIR, "inference", name)
    evaluator = evaluator_factory(name, folder)
    masks = bool(cfg.MODEL.MASK_ON)
    if hasattr(evaluator, "check"):
        evaluator.check(masks=masks)
    if best not in ("", "auto") and hasattr(evaluator, "metric_names"):
        known = evaluator.metric_names(masks=masks)
        if best not in known:
            raise ConfigurationError(f"TEST.BEST is {best!r}; its evaluation gives {', '.join(sorted(known))}.")
    require_writable(folder)


def _check_embeddings(cfg: CfgNode, names: Sequence[str]) -> None:
    """Names that MODEL.VOCABULARY.EMBEDDINGS has to contain; rows without names (.npy) cannot be looked at."""
    file = cfg.MODEL.VOCABULARY.EMBEDDINGS
    if file and not file.endswith(".npy"):
        synonyms = choose(Synonyms, cfg.MODEL.VOCABULARY.SYNONYMS, "MODEL.VOCABULARY.SYNONYMS")
        load_text_embeddings(file, list(dict.fromkeys(p for name in names for p in synonyms.phrases(name))))
