"""Training and evaluation of a detector from its configuration."""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext

from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.engine.defaults import default_writers
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.modeling import build_model
from detectron2.solver import build_lr_scheduler
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..structures import ConfigurationError, choose
from ..training import Precision, ProgressBar, arithmetic, join_processes, resolve_device
from .best import BestCheckpoint
from .checkpoint import FViTCheckpointer
from .loader import build_test_loader, build_train_loader, have_masks, training_records
from .meta_arch import FViT
from .origin import predictions_origin
from .proposals_file import write_proposals
from .solver import build_optimizer, build_trained_average
from .trainer import DetectionTrainer, SeedEachStep

logger = logging.getLogger(__name__)

EvaluatorFactory = Callable[[str, str], DatasetEvaluator]


def run(
    cfg: CfgNode,
    *,
    evaluator_factory: EvaluatorFactory | None = None,
    resume: bool = False,
    eval_only: bool = False,
) -> dict[str, dict]:
    """Train and evaluate, or evaluate alone. Training sets without any mask switch MODEL.MASK_ON off, with a warning.

    Every step draws from generators seeded by (seed, step, process) and every image by (seed, its place in the
    stream), so a resumed run on the CPU continues bit for bit, with any number of loader workers. A negative SEED is
    drawn anew at each start and gives that up.

    Args:
        cfg: complete; OUTPUT_DIR receives checkpoints, metrics.json, TensorBoard scalars and the evaluators' files.
        evaluator_factory: (data set name, output folder) -> evaluator; None: nothing is evaluated. Each set has a
            folder of its own, OUTPUT_DIR/inference/<name>.
        resume: continue from the last checkpoint in OUTPUT_DIR, if there is one.
        eval_only: evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint.

    Returns:
        {data set name: results of its evaluator}; empty without an evaluator and on processes other than the first.

    Raises:
        ConfigurationError: nothing to train on or to evaluate.
    """
    cfg = with_device(cfg)
    records = None if eval_only else training_records(cfg)
    if records is not None and cfg.MODEL.MASK_ON and not have_masks(records):
        cfg = without_masks(cfg)
    model = build_model(cfg)
    if not isinstance(model, FViT):
        raise ConfigurationError(f"This engine trains FViT; MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}.")
    model.metadata["config"] = cfg.dump()
    logger.info("%s", describe(model))
    if eval_only:
        if not cfg.DATASETS.TEST or evaluator_factory is None:
            raise ConfigurationError("--eval-only needs DATASETS.TEST and an evaluator.")
        checkpointer = FViTCheckpointer(model, cfg.OUTPUT_DIR)
        if not (resume and checkpointer.has_checkpoint()) and not cfg.MODEL.WEIGHTS:
            logger.warning("No MODEL.WEIGHTS: the detector's trained part is random, its detections mean nothing.")
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
        if cfg.TEST.PROPOSALS.FILE:
            return _propose(cfg, model)
        return test(cfg, model, evaluator_factory, alone=True)
    return train(cfg, model, evaluator_factory, resume=resume, records=records)


def train(
    cfg: CfgNode,
    model: FViT,
    evaluator_factory: EvaluatorFactory | None,
    *,
    resume: bool = False,
    records: list[dict] | None = None,
) -> dict[str, dict]:
    """Train a built model as configured, on `records` or on those of DATASETS.TRAIN; see `run`."""
    records = training_records(cfg) if records is None else records
    seed = cfg.SEED if cfg.SEED >= 0 else int(comm.shared_random_seed())
    trainer = build_trainer(cfg, model, seed=seed)
    average = trainer.average
    checkpointer = FViTCheckpointer(
        model, cfg.OUTPUT_DIR, trainer=trainer, **({} if average is None else {"average": average})
    )
    resumed = resume and checkpointer.has_checkpoint()
    best = BestCheckpoint(checkpointer, cfg.TEST.BEST, resumed=resumed) if cfg.TEST.BEST else None
    results: dict[str, dict] = {}

    def evaluate() -> dict[str, dict]:
        trained_on = model.vocabulary
        with nullcontext() if average is None else average.exported_weights():
            results.update(test(cfg, trainer.model, evaluator_factory))
        model.set_vocabulary(trained_on.names, novel=trained_on.novel)
        return results

    def evaluate_and_keep_best() -> dict[str, dict]:
        found = evaluate()
        if best is not None:
            best.offer(found.get(cfg.DATASETS.TEST[0], {}), min(trainer.iter + 1, cfg.SOLVER.MAX_ITER))
        return found

    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            SeedEachStep(seed),
            hooks.LRScheduler(trainer.optimizer, build_lr_scheduler(cfg, trainer.optimizer)),
            hooks.PeriodicCheckpointer(checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD, max_to_keep=3)
            if comm.is_main_process()
            else None,
            ProgressBar("detector", ("total_loss",)) if comm.is_main_process() else None,
            hooks.EvalHook(cfg.TEST.EVAL_PERIOD, evaluate_and_keep_best)
            if cfg.DATASETS.TEST and evaluator_factory
            else None,
            hooks.PeriodicWriter(default_writers(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER), period=20)
            if comm.is_main_process()
            else None,
        ]
    )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    start = trainer.iter + 1 if resumed else 0
    if start >= cfg.SOLVER.MAX_ITER:
        logger.info("The last checkpoint is of step %d of %d: trained already.", start, cfg.SOLVER.MAX_ITER)
        return evaluate() if cfg.DATASETS.TEST and evaluator_factory else {}
    trainer.images_drawn = start * cfg.SOLVER.IMS_PER_BATCH
    trainer.data_loader = build_train_loader(cfg, start, seed, records)
    trainer.train(start, cfg.SOLVER.MAX_ITER)
    return results


def build_trainer(cfg: CfgNode, model: FViT, *, seed: int) -> DetectionTrainer:
    """Optimizer, arithmetic and average as configured; the data come later."""
    precision = choose(Precision, cfg.SOLVER.AMP.PRECISION, "SOLVER.AMP.PRECISION")
    if not cfg.SOLVER.AMP.ENABLED:
        precision = Precision.FP32
    autocast, scaler = arithmetic(precision, model.device, "SOLVER.AMP.PRECISION")
    return DetectionTrainer(
        model=join_processes(model, model.device),
        batches=(),
        optimizer=build_optimizer(cfg, model),
        device=model.device,
        accumulate=cfg.SOLVER.ACCUMULATE,
        clip_norm=cfg.SOLVER.CLIP_NORM or None,
        seed=seed,
        images_per_step=cfg.SOLVER.IMS_PER_BATCH,
        scaler=scaler,
        failures=cfg.OUTPUT_DIR,
        autocast=autocast,
        average=build_trained_average(cfg, model),
    )


def test(
    cfg: CfgNode, model: nn.Module, evaluator_factory: EvaluatorFactory, *, alone: bool = False
) -> dict[str, dict]:
    """Evaluate on each set of DATASETS.TEST with that set's own vocabulary, whatever the model was trained on.

    Args:
        alone: this is no evaluation during training, where the weights have changed by the next start: evaluators that
            can (`announce`) may be interrupted and continued, see TEST.RESUME_PREDICTIONS.
    """
    detector = model.module if isinstance(model, DistributedDataParallel) else model
    results = {}
    for name in cfg.DATASETS.TEST:
        detector.use_dataset(name)
        logger.info(
            "Evaluating on %s: %d classes, %d of them novel",
            name,
            len(detector.vocabulary),
            len(detector.vocabulary.novel),
        )
        evaluator = evaluator_factory(name, os.path.join(cfg.OUTPUT_DIR, "inference", name))
        finished = frozenset()
        if alone and hasattr(evaluator, "announce"):
            origin = predictions_origin(cfg, detector)
            finished = evaluator.announce(origin, resume=cfg.TEST.RESUME_PREDICTIONS)
        loader = build_test_loader(cfg, name, finished)
        bar = tqdm(loader, desc=f"detect {name}", unit="batch", disable=not comm.is_main_process(), mininterval=0.5)
        result = inference_on_dataset(model, bar, evaluator)
        if comm.is_main_process() and result:
            results[name] = dict(result)
            print_csv_format(result)
    return results


def _propose(cfg: CfgNode, model: FViT) -> dict[str, dict]:
    """Write the proposals of the set in DATASETS.TEST; {its name: {"proposals": {"count": their number}}}."""
    if len(cfg.DATASETS.TEST) != 1:
        raise ConfigurationError(
            f"TEST.PROPOSALS.FILE takes the proposals of one set; DATASETS.TEST is {cfg.DATASETS.TEST}."
        )
    name = cfg.DATASETS.TEST[0]
    settings = cfg.TEST.PROPOSALS
    count = write_proposals(model, build_test_loader(cfg, name), settings.FILE, per_image=settings.PER_IMAGE)
    return {name: {"proposals": {"count": count}}} if comm.is_main_process() else {}


def with_device(cfg: CfgNode) -> CfgNode:
    """The configuration with the device that this machine has; Detectron2's model builder reads it there."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = str(resolve_device(cfg.MODEL.DEVICE))
    cfg.freeze()
    return cfg


def without_masks(cfg: CfgNode) -> CfgNode:
    """The configuration with MODEL.MASK_ON off; warns."""
    logger.warning(
        "MODEL.MASK_ON is True, but no object of DATASETS.TRAIN has a segmentation: the detector is trained without a "
        "mask head. Evaluate it with MODEL.MASK_ON False."
    )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.MASK_ON = False
    cfg.freeze()
    return cfg


def describe(model: FViT) -> str:
    """One line: what is trained and what is frozen."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    name = model.metadata.get("encoder", type(model.backbone.encoder).__name__)
    return f"F-ViT over {name}: {trained / 1e6:.2f} M parameters trained, {frozen / 1e6:.2f} M frozen"
