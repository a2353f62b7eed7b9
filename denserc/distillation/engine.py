"""From a configuration to a distilled encoder: `run` builds the parts, trains, exports, evaluates."""

import functools
import logging
import platform
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import detectron2
import torch
from detectron2.config import CfgNode
from detectron2.engine import hooks
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter

from .. import __version__
from ..construction import DenseModel, build_dense_model, load_checkpoint
from ..engine import (
    CheckpointWriter,
    MetricsWriter,
    ProgressBar,
    SeedEachStep,
    StopOnSignal,
    resolve_device,
    training_folder,
)
from ..engine.config import refuse_ignored
from ..engine.sharding import sharded_root
from ..structures import CheckpointError, ConfigurationError, write_errors
from .build import build_trainer
from .config import IGNORED
from .export import PRODUCT_NAME, export
from .target_cache import TargetMemory
from .trainer import StudentCheckpointer, latest_state, read_state

logger = logging.getLogger(__name__)

Evaluator = Callable[[CfgNode, DenseModel], dict]


def run(
    cfg: CfgNode,
    *,
    resume: bool = False,
    eval_only: bool = False,
    evaluator_factory: Evaluator | None = None,
    memory: TargetMemory | None = None,
) -> dict:
    """Distill an encoder and write OUTPUT_DIR/denserc.safetensors.

    Args:
        cfg: Detectron2's defaults with DenseRC's keys.
        resume: Continue from the newest resume state of OUTPUT_DIR, if there is one. With eval_only:
            evaluate OUTPUT_DIR's product.
        eval_only: Train nothing; evaluate MODEL.ENCODER as it is.
        evaluator_factory: (cfg, model) -> {task: {metric: score}}, called with the model in evaluation mode.
        memory: Cache of the frozen models' features, shared by trainings with the same draws.

    Returns:
        The evaluator's results; after training also {"distillation": the last losses}.

    Raises:
        ConfigurationError, DataError, CheckpointError: See their messages.
        TrainingStopped: SIGTERM or Ctrl-C has ended the training, and its state is written.
    """
    refuse_ignored(cfg, IGNORED)
    device = resolve_device(cfg.MODEL.DEVICE)
    evaluate = functools.partial(_evaluate, cfg, evaluator_factory, device)
    if eval_only:
        if evaluator_factory is None:
            raise ConfigurationError("eval_only needs an evaluator_factory; there is nothing else to do.")
        product = Path(cfg.OUTPUT_DIR) / PRODUCT_NAME
        if resume and not product.is_file():
            raise CheckpointError(f"Nothing to evaluate with --resume: {product} does not exist. Train first.")
        return evaluate(load_checkpoint(product) if resume else build_dense_model(cfg))
    with training_folder(cfg.OUTPUT_DIR):
        return _train(cfg, evaluate if evaluator_factory else None, device, resume=resume, memory=memory)


def _train(
    cfg: CfgNode,
    evaluate: Callable[[DenseModel], dict] | None,
    device: torch.device,
    *,
    resume: bool,
    memory: TargetMemory | None,
) -> dict:
    """Train, export and evaluate; see `run`."""
    state_path = latest_state(cfg.OUTPUT_DIR) if resume else None
    content = read_state(state_path) if state_path else None
    seed = content["trainer"]["seed"] if content else cfg.SEED
    if seed < 0:
        seed = comm.shared_random_seed() % 2**31
        logger.info(f"SEED is {cfg.SEED}; drew {seed}. It stands in the resume states and in the product.")
    # The same on all processes: only towers with random weights and dropout depend on it.
    seed_all_rng(seed)

    model = build_dense_model(cfg)
    trainer = build_trainer(
        cfg,
        model,
        device=device,
        seed=seed,
        images_drawn=content["trainer"]["images_drawn"] if content else 0,
        memory=memory,
    )
    checkpointer = StudentCheckpointer(trainer, cfg.OUTPUT_DIR)
    start = checkpointer.resume(content, state_path) if content else 0
    if content:
        logger.info(f"Resumed after {start} steps from {state_path}.")
    del content

    def evaluate_trained() -> dict:
        with trainer.evaluated_encoder() as encoder:
            return evaluate(replace(model, encoder=encoder))

    trainer.register_hooks(_hooks(cfg, checkpointer, seed, evaluate_trained if evaluate else None))
    # Even with nothing left to do this ends in the same product and results.
    trainer.train(start, cfg.SOLVER.MAX_ITER)
    trainer.monitor.report()

    losses = {
        name: value for name, (value, _) in trainer.storage.latest().items() if name.startswith(("loss_", "total_"))
    }
    results = {"distillation": {"steps": cfg.SOLVER.MAX_ITER, "images": trainer.images_drawn, **losses}}
    product = None
    encoder = trainer.product_encoder()
    if comm.is_main_process():
        notes = {"steps": cfg.SOLVER.MAX_ITER, "images": trainer.images_drawn, "seed": seed, **_origin(cfg)}
        alpha = cfg.DISTILL.EXPORT_BLEND
        trained = replace(model, encoder=encoder)
        product = export(cfg.OUTPUT_DIR, trained, trainer.distiller.teacher, alpha=alpha, notes=notes)
        logger.info(f"Wrote {Path(cfg.OUTPUT_DIR) / PRODUCT_NAME}.")
    comm.synchronize()
    if evaluate is not None:
        if product is None:
            product = load_checkpoint(Path(cfg.OUTPUT_DIR) / PRODUCT_NAME)
        scores = evaluate(product)
        if comm.is_main_process():
            _log_scores(cfg, scores)
        results.update(scores)
    return results


def _log_scores(cfg: CfgNode, scores: dict) -> None:
    """The product's scores in metrics.json and TensorBoard, where the hook has put those of earlier steps."""
    with write_errors(cfg.OUTPUT_DIR), EventStorage(cfg.SOLVER.MAX_ITER - 1) as storage:
        storage.put_scalars(**flatten_results_dict(scores), smoothing_hint=False)
        for writer in (JSONWriter(str(Path(cfg.OUTPUT_DIR) / "metrics.json")), TensorboardXWriter(cfg.OUTPUT_DIR)):
            writer.write()
            writer.close()


def _origin(cfg: CfgNode) -> dict:
    """Origin of a product: versions and the whole configuration."""
    versions = {
        "denserc": __version__,
        "torch": torch.__version__,
        "detectron2": detectron2.__version__,
        "python": platform.python_version(),
    }
    return {"versions": versions, "config": cfg.dump()}


def _hooks(cfg: CfgNode, checkpointer: StudentCheckpointer, seed: int, evaluate: Callable[[], dict] | None) -> list:
    settings = cfg.DISTILL
    every = [hooks.IterationTimer(), SeedEachStep(seed)]
    if evaluate is not None and cfg.TEST.EVAL_PERIOD > 0:
        every.append(hooks.EvalHook(cfg.TEST.EVAL_PERIOD, evaluate, eval_after_train=False))
    period = cfg.SOLVER.CHECKPOINT_PERIOD
    writer = CheckpointWriter(checkpointer, period=period, keep=settings.KEEP_STATES)
    every.append(writer)
    if comm.is_main_process():
        every.append(MetricsWriter(cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER, settings.LOG_PERIOD))
        if sys.stderr.isatty():
            every.append(ProgressBar("distil"))
    # After an evaluation, which is then whole; and after the others, whose files are then closed.
    every.append(StopOnSignal(writer, checkpointer.checkpointables["trainer"].device))
    return every


def _evaluate(cfg: CfgNode, factory: Evaluator, device: torch.device, model: DenseModel) -> dict:
    """The evaluator's results; the model's mode is put back afterwards, the generators' state too."""
    modes = model.encoder.training, model.text.training
    if sharded_root(model.encoder) is None:  # FSDP2 takes gathered weights away in `to`; they are on the device anyway
        model.encoder.to(device)
    model.encoder.eval()
    model.text.to(device).eval()
    with torch.random.fork_rng(enabled=True), torch.no_grad():
        results = factory(cfg, model)
    model.encoder.train(modes[0])
    model.text.train(modes[1])
    return results or {}
