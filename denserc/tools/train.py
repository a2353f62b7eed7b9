"""Functions that `denserc distill`, `denserc train` and `denserc eval` launch in each process."""

from argparse import Namespace

from ..detection import engine as detection
from ..distillation import engine as distillation
from ..evaluation import check_region_sets, detection_evaluators, evaluate_dense_model
from ..launch import setup
from ..llava import engine as llava
from ..segmentation import engine as segmentation
from .evaluate_llava import answer_and_score


def distill(args: Namespace) -> dict[str, dict[str, float]]:
    """Distill or evaluate a dense encoder.

    Args:
        args: Arguments of `denserc.commands.training`, or of Detectron2's `default_argument_parser`.

    Returns:
        {task: {metric: score}}; empty without DATASETS.TEST.
    """
    cfg = setup(args)
    check_region_sets(cfg)
    evaluator = evaluate_dense_model if cfg.DATASETS.TEST else None
    results = distillation.run(cfg, resume=args.resume, eval_only=args.eval_only, evaluator_factory=evaluator)
    for task, metrics in results.items():
        print(f"{task}: " + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return results


def train(args: Namespace) -> dict[str, dict]:
    """Train or evaluate the detector, segmenter or LLaVA of MODEL.META_ARCHITECTURE.

    Args:
        args: Arguments as `distill` takes them.

    Returns:
        {data set: {task: {metric: score}}}; of a LLaVA {task: {metric: score}}.
    """
    cfg = setup(args)
    if cfg.MODEL.META_ARCHITECTURE == llava.ARCHITECTURE:
        evaluator = answer_and_score if cfg.LLAVA.TEST.QUESTIONS else None
        return llava.run(cfg, evaluator=evaluator, resume=args.resume, eval_only=args.eval_only)
    evaluators = detection_evaluators(cfg)
    run = segmentation.run if cfg.MODEL.META_ARCHITECTURE in segmentation.ARCHITECTURES else detection.run
    return run(cfg, evaluator_factory=evaluators, resume=args.resume, eval_only=args.eval_only)
