"""Training and evaluation of the segmenters: the shared engine with the mappers of semantic sets."""

from detectron2.config import CfgNode

from ..openvocab import engine
from ..openvocab.engine import EvaluatorFactory, Mappers
from .data import test_mapper, training_mapper
from .dense import DENSE_MAPPERS

MAPPERS = Mappers(training=training_mapper, test=test_mapper)
ARCHITECTURES = {"CATSeg": MAPPERS, "DenseSegmenter": DENSE_MAPPERS}
"""MODEL.META_ARCHITECTURE -> its mappers; an architecture of a user's own has CAT-Seg's."""


def run(
    cfg: CfgNode,
    *,
    evaluator_factory: EvaluatorFactory | None = None,
    resume: bool = False,
    eval_only: bool = False,
) -> dict[str, dict]:
    """Train and evaluate, or only evaluate; see `openvocab.engine.run`.

    Raises:
        ConfigurationError: Nothing to train on or to evaluate.
    """
    mappers = ARCHITECTURES.get(cfg.MODEL.META_ARCHITECTURE, MAPPERS)
    return engine.run(cfg, mappers, evaluator_factory=evaluator_factory, resume=resume, eval_only=eval_only)
