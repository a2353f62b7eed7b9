"""Training and evaluation of F-ViT: the shared engine with the detector's mappers, masks by the data, proposals."""

import logging

from detectron2.config import CfgNode
from detectron2.utils import comm

from ..engine.config import refuse_ignored
from ..openvocab import engine
from ..openvocab.engine import EvaluatorFactory, Mappers
from ..openvocab.loader import build_test_loader, training_records
from ..structures import ConfigurationError
from .config import IGNORED
from .data import have_masks, test_mapper, training_mapper
from .modeling.meta_arch import FViT
from .proposals import write_proposals

logger = logging.getLogger(__name__)

MAPPERS = Mappers(training=training_mapper, test=test_mapper)


def run(
    cfg: CfgNode,
    *,
    evaluator_factory: EvaluatorFactory | None = None,
    resume: bool = False,
    eval_only: bool = False,
) -> dict[str, dict]:
    """Train and evaluate a detector, or only evaluate it; see `openvocab.engine.run`.

    Training sets without any mask switch MODEL.MASK_ON off, with a warning. With `eval_only` and TEST.PROPOSALS.FILE
    the proposals of the one test set are written instead.

    Raises:
        ConfigurationError: Nothing to train on or to evaluate.
    """
    refuse_ignored(cfg, IGNORED)
    if eval_only and cfg.TEST.PROPOSALS.FILE:
        return _propose(cfg, engine.load_model(cfg, resume=resume))
    records = None if eval_only else training_records(cfg)
    if records is not None and cfg.MODEL.MASK_ON and not have_masks(records):
        cfg = without_masks(cfg)
    return engine.run(
        cfg, MAPPERS, evaluator_factory=evaluator_factory, resume=resume, eval_only=eval_only, records=records
    )


def _propose(cfg: CfgNode, model: FViT) -> dict[str, dict]:
    """Write the proposals of the set in DATASETS.TEST; {its name: {"proposals": {"count": their number}}}."""
    if len(cfg.DATASETS.TEST) != 1:
        raise ConfigurationError(
            f"TEST.PROPOSALS.FILE takes the proposals of one set; DATASETS.TEST is {cfg.DATASETS.TEST}."
        )
    name = cfg.DATASETS.TEST[0]
    settings = cfg.TEST.PROPOSALS
    loader = build_test_loader(cfg, test_mapper(cfg), name)
    count = write_proposals(model, loader, settings.FILE, per_image=cfg.MODEL.RPN.POST_NMS_TOPK_TEST)
    return {name: {"proposals": {"count": count}}} if comm.is_main_process() else {}


def without_masks(cfg: CfgNode) -> CfgNode:
    """The configuration with MODEL.MASK_ON off; logs a warning."""
    logger.warning(
        "MODEL.MASK_ON is True, but no object of DATASETS.TRAIN has a segmentation: the detector is trained without a "
        "mask head. Evaluate it with MODEL.MASK_ON False."
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.MASK_ON = False
    cfg.freeze()
    return cfg
