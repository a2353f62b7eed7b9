"""Training and evaluation of a registered meta-architecture from a Detectron2 config.

The architecture is an OpenVocabularyModel, named by MODEL.META_ARCHITECTURE. Its mappers, from a record of a data set
to an input of the model, are passed as functions of the config; everything else is shared.
"""

import logging
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ..data.images.tolerance import UnreadableMonitor
from ..engine import (
    CheckpointWriter,
    Evaluation,
    MetricsWriter,
    ProgressBar,
    SeedEachStep,
    Sharding,
    StopOnSignal,
    arithmetic,
    join_processes,
    resolve_device,
    training_folder,
)
from ..engine.config import configured_clip_norm, configured_precision
from ..engine.sharding import gathered, shard
from ..engine.solver import build_optimizer, build_schedule, build_trained_average, require_steps
from ..structures import ConfigurationError, choose
from .checkpoint import BestCheckpoint, ModelCheckpointer, predictions_digest
from .loader import Mapper, build_test_loader, build_train_loader, describe_records, training_records
from .preflight import check_test_sets
from .registry import registered
from .trainer import OpenVocabularyTrainer
from .vocabulary import OpenVocabularyModel

logger = logging.getLogger(__name__)

EvaluatorFactory = Callable[[str, str], DatasetEvaluator]
"""(data set name, output folder) -> evaluator. Each set has a folder of its own, OUTPUT_DIR/inference/<name>."""


@dataclass(frozen=True)
class Mappers:
    """From records to inputs of a model, as functions of the config.

    Args:
        training: Builds the mapper of training records; draws from NumPy's global generator.
        test: Builds the mapper of test records.
    """

    training: Callable[[CfgNode], Mapper]
    test: Callable[[CfgNode], Mapper]


def run(
    cfg: CfgNode,
    mappers: Mappers,
    *,
    evaluator_factory: EvaluatorFactory | None = None,
    resume: bool = False,
    eval_only: bool = False,
    records: list[dict] | None = None,
) -> dict[str, dict]:
    """Train and evaluate, or only evaluate.

    Every step draws from generators seeded by (seed, step, process) and every image by (seed, its position in the
    stream), so a resumed run on the CPU is bitwise identical, with any number of loader workers. A negative SEED is
    drawn anew at each start, without that guarantee.

    Args:
        cfg: Complete configuration; OUTPUT_DIR receives checkpoints, metrics.json, TensorBoard scalars and the
            evaluators' files.
        mappers: Mappers from records to inputs of the model.
        evaluator_factory: Function that builds a set's evaluator; None evaluates nothing.
        resume: Continue from the last checkpoint in OUTPUT_DIR, if there is one.
        eval_only: Evaluate MODEL.WEIGHTS, or with `resume` the last checkpoint.
        records: Training records; None reads those of DATASETS.TRAIN.

    Returns:
        {data set name: results of its evaluator}; empty without an evaluator and on processes other than the first.

    Raises:
        ConfigurationError: Nothing to train on or to evaluate, or an architecture of another kind.
        ConfigurationError, DataError: A set of DATASETS.TEST cannot be evaluated; found before anything else runs.
        TrainingStopped: SIGTERM or Ctrl-C has ended the training, and its state is written.
    """
    if eval_only:
        if not cfg.DATASETS.TEST or evaluator_factory is None:
            raise ConfigurationError("--eval-only needs DATASETS.TEST and an evaluator.")
        check_test_sets(cfg, evaluator_factory, training=False)
        model = load_model(cfg, resume=resume)
        return test(cfg, model, mappers, evaluator_factory, resumable=True)
    require_steps(cfg)
    with training_folder(cfg.OUTPUT_DIR):
        records = training_records(cfg) if records is None else records
        if evaluator_factory is not None:
            check_test_sets(cfg, evaluator_factory, training=True)
        return train(cfg, build(cfg), mappers, evaluator_factory, resume=resume, records=records)


def build(cfg: CfgNode) -> OpenVocabularyModel:
    """The meta-architecture of a config on its device, with the configuration in its metadata.

    Raises:
        ConfigurationError: MODEL.META_ARCHITECTURE is not a registered OpenVocabularyModel.
    """
    cfg = with_device(cfg)
    registered(META_ARCH_REGISTRY, cfg.MODEL.META_ARCHITECTURE, "MODEL.META_ARCHITECTURE", OpenVocabularyModel)
    if cfg.SEED >= 0:
        torch.manual_seed(cfg.SEED)  # initial weights do not depend on what this process drew before
    model = build_model(cfg)
    model.metadata["config"] = cfg.dump()
    logger.info("%s", describe(model))
    return model


def load_model(cfg: CfgNode, *, resume: bool = False) -> OpenVocabularyModel:
    """The model of a config with the weights of MODEL.WEIGHTS, or with `resume` of the last checkpoint."""
    model = build(cfg)
    checkpointer = ModelCheckpointer(model, cfg.OUTPUT_DIR)
    trained = any(parameter.requires_grad for parameter in model.parameters())
    if trained and not (resume and checkpointer.has_checkpoint()) and not cfg.MODEL.WEIGHTS:
        logger.warning("No MODEL.WEIGHTS: the trained part of the model is random, its predictions mean nothing.")
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    return model


def train(
    cfg: CfgNode,
    model: OpenVocabularyModel,
    mappers: Mappers,
    evaluator_factory: EvaluatorFactory | None,
    *,
    resume: bool = False,
    records: list[dict] | None = None,
) -> dict[str, dict]:
    """Train a built model as configured, on `records` or on those of DATASETS.TRAIN; see `run`."""
    records = training_records(cfg) if records is None else records
    seed = cfg.SEED if cfg.SEED >= 0 else int(comm.shared_random_seed())
    classes = () if model.vocabulary is None else model.vocabulary.names
    trainer = build_trainer(cfg, model, seed=seed, data=describe_records(records, classes), images=len(records))
    average = trainer.average
    checkpointer = ModelCheckpointer(
        model, cfg.OUTPUT_DIR, trainer=trainer, **({} if average is None else {"average": average})
    )
    resumed = resume and checkpointer.has_checkpoint()
    best = BestCheckpoint(checkpointer, cfg.TEST.BEST, resumed=resumed) if cfg.TEST.BEST else None
    results: dict[str, dict] = {}

    def evaluate() -> dict[str, dict]:
        trained_on = model.vocabulary
        with nullcontext() if average is None else average.exported_weights(), gathered(model):
            results.update(test(cfg, trainer.model, mappers, evaluator_factory))
        model.set_vocabulary(trained_on.names, novel=trained_on.novel)
        return results

    def evaluate_and_update_best() -> dict[str, dict]:
        found = evaluate()
        if best is not None:
            best.update(found.get(cfg.DATASETS.TEST[0], {}), min(trainer.iter + 1, cfg.SOLVER.MAX_ITER))
        return found

    writer = CheckpointWriter(checkpointer, period=cfg.SOLVER.CHECKPOINT_PERIOD, keep=3)
    trainer.register_hooks(
        [
            hooks.IterationTimer(),
            SeedEachStep(seed),
            hooks.LRScheduler(trainer.optimizer, build_schedule(cfg, trainer.optimizer)),
            writer,
            ProgressBar(type(model).__name__, ("total_loss",)) if comm.is_main_process() else None,
            StopOnSignal(writer, model.device),
            Evaluation(cfg.TEST.EVAL_PERIOD, evaluate_and_update_best, cfg.OUTPUT_DIR)
            if cfg.DATASETS.TEST and evaluator_factory
            else None,
            MetricsWriter(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, period=20) if comm.is_main_process() else None,
        ]
    )
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=resume)
    start = trainer.iter + 1 if resumed else 0
    trainer.images_drawn = start * cfg.SOLVER.IMS_PER_BATCH
    if start >= cfg.SOLVER.MAX_ITER:
        logger.info("The last checkpoint is of step %d of %d: trained already.", start, cfg.SOLVER.MAX_ITER)
    else:
        trainer.data_loader = build_train_loader(cfg, mappers.training(cfg), start=start, seed=seed, records=records)
    # Even with nothing left to do this ends in the same files and results.
    trainer.train(start, cfg.SOLVER.MAX_ITER)
    trainer.monitor.report()
    return results


def build_trainer(
    cfg: CfgNode, model: OpenVocabularyModel, *, seed: int, data: str = "", images: int = 0
) -> OpenVocabularyTrainer:
    """Optimizer, arithmetic and average as configured; the batches come later.

    Args:
        seed: Seed of the run.
        data: Description of the training data; a state of other data is refused.
        images: Number of training images, of which a share may be unreadable.
    """
    autocast, scaler = arithmetic(configured_precision(cfg), model.device, "SOLVER.AMP.PRECISION")
    if choose(Sharding, cfg.SOLVER.SHARDING, "SOLVER.SHARDING").acts:
        shard(model)
        joined = model
    else:
        joined = join_processes(model, model.device)
    return OpenVocabularyTrainer(
        model=joined,
        batches=(),
        optimizer=build_optimizer(cfg, model),
        device=model.device,
        accumulate=cfg.SOLVER.ACCUMULATE,
        clip_norm=configured_clip_norm(cfg),
        seed=seed,
        images_per_step=cfg.SOLVER.IMS_PER_BATCH,
        data=data,
        scaler=scaler,
        failures=cfg.OUTPUT_DIR,
        autocast=autocast,
        monitor=UnreadableMonitor(total=images, limit=cfg.DATALOADER.MAX_UNREADABLE),
        average=build_trained_average(cfg, model),
    )


def test(
    cfg: CfgNode,
    model: nn.Module,
    mappers: Mappers,
    evaluator_factory: EvaluatorFactory,
    *,
    resumable: bool = False,
) -> dict[str, dict]:
    """Evaluate on each set of DATASETS.TEST with that set's own vocabulary, whatever the model was trained on.

    Args:
        resumable: An interrupted evaluation may be continued (TEST.RESUME_PREDICTIONS), by evaluators that have
            `begin`. Not during training, where the weights have changed by the next start.
    """
    module = model.module if isinstance(model, DistributedDataParallel) else model
    results = {}
    for name in cfg.DATASETS.TEST:
        module.use_dataset(name)
        logger.info(
            "Evaluating on %s: %d classes, %d of them novel", name, len(module.vocabulary), len(module.vocabulary.novel)
        )
        evaluator = evaluator_factory(name, os.path.join(cfg.OUTPUT_DIR, "inference", name))
        finished = frozenset()
        if resumable and hasattr(evaluator, "begin"):
            finished = evaluator.begin(predictions_digest(cfg, module), resume=cfg.TEST.RESUME_PREDICTIONS)
        loader = build_test_loader(cfg, mappers.test(cfg), name, finished, getattr(evaluator, "miss", None))
        bar = tqdm(loader, desc=f"evaluate {name}", unit="batch", disable=not comm.is_main_process(), mininterval=0.5)
        with module.best_labels() if getattr(evaluator, "reads_labels", False) else nullcontext():
            result = inference_on_dataset(model, bar, evaluator)
        if comm.is_main_process() and result:
            if loader.monitor.reasons:
                result["images"] = {"unreadable": float(len(loader.monitor.reasons))}
                loader.monitor.report()
            results[name] = dict(result)
            print_csv_format(result)
    return results


def with_device(cfg: CfgNode) -> CfgNode:
    """The configuration with a device that this machine has; Detectron2's model builder reads it there."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = str(resolve_device(cfg.MODEL.DEVICE))
    cfg.freeze()
    return cfg


def describe(model: OpenVocabularyModel) -> str:
    """One line: the architecture, its encoder, the numbers of trained and frozen parameters."""
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    encoder = model.metadata.get("encoder", "an unnamed encoder")
    return (
        f"{type(model).__name__} over {encoder}: {trained / 1e6:.2f} M parameters trained, {frozen / 1e6:.2f} M frozen"
    )
