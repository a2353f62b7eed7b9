"""Training of a LLaVA from a configuration: data, model, checks, training, and the final folder.

This module imports no transformers until it runs; its error names the extra to install.
"""

import logging
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng

from ..engine.config import refuse_ignored
from ..engine.hooks import lines_above_bars
from ..engine.runtime import training_folder
from ..structures import CheckpointError, ConfigurationError, choose
from ..structures.atomic import written_by_others
from .config import IGNORED
from .conversations import read_conversations
from .options import Aspect, LossAverage, TrainedParts
from .sampling import modality_lengths
from .templates import require_template

logger = logging.getLogger(__name__)

ARCHITECTURE = "LLaVA"
"""MODEL.META_ARCHITECTURE of a LLaVA."""
FINAL = "model"
"""Folder below OUTPUT_DIR of the trained LLaVA with its processor."""

Evaluator = Callable[[CfgNode, Path], dict]
"""(cfg, folder of a LLaVA) -> {task: {metric: score}}."""
DataFactory = Callable[..., tuple]
"""Keywords cfg, conversations, template, model and processor -> (data set, collator).

The data set has an item per conversation where LLAVA.GROUP_BY_MODALITY_LENGTH orders them.
"""


def run(
    cfg: CfgNode,
    *,
    evaluator: Evaluator | None = None,
    resume: bool = False,
    eval_only: bool = False,
    data_factory: DataFactory | None = None,
) -> dict[str, dict]:
    """Train one stage and write OUTPUT_DIR/model, or only evaluate.

    The order of the examples follows from SEED and the epoch; checkpoints hold all other state. So a resumed run on the
    CPU is bitwise identical.

    Args:
        cfg: Complete configuration. OUTPUT_DIR receives checkpoint-STEP, metrics.json, TensorBoard scalars and the
            final folder `model`.
        evaluator: None evaluates nothing. After a training of several processes it is not called.
        resume: Continue from the last complete checkpoint in OUTPUT_DIR, if there is one. With `eval_only`, evaluate
            OUTPUT_DIR/model.
        eval_only: Evaluate MODEL.WEIGHTS without training.
        data_factory: Makes the examples; None: one conversation per sequence, with its picture read from disk.

    Returns:
        {"training": {"steps", "loss": mean over this run's steps}}, without "loss" where nothing was left to do; and
        the evaluator's results.

    Raises:
        ConfigurationError: Packages are absent, or keys contradict each other.
        DataError: Training files break the rules.
        CheckpointError, FingerprintMismatchError: The starting model cannot be used.
        TrainingStopped: SIGTERM or Ctrl-C has ended the training, and a checkpoint is written.
    """
    refuse_ignored(cfg, IGNORED)
    _require_packages()
    if eval_only:
        return _evaluate_only(cfg, evaluator, resume=resume)
    # Whatever needs no model comes first: its errors take seconds instead of minutes.
    with training_folder(cfg.OUTPUT_DIR):
        conversations = read_conversations(cfg.LLAVA.DATA.FILES, cfg.LLAVA.DATA.IMAGES)
        template = require_template(conversations, cfg.LLAVA.TEMPLATE)
        results = _train(cfg, conversations, template, data_factory or conversation_data, resume=resume)
    if evaluator is not None and comm.get_world_size() > 1:
        logger.info("Several processes do not evaluate; start --eval-only --resume in one, or `denserc answer`.")
    elif evaluator is not None:
        results |= evaluator(cfg, Path(cfg.OUTPUT_DIR) / FINAL)
    return results


def conversation_data(*, cfg: CfgNode, conversations: list, template, model, processor) -> tuple:
    """Examples of one conversation each, and their collator."""
    from .collator import Collator, ConversationDataset, PictureTransform

    data = ConversationDataset(
        conversations,
        template=template,
        tokenizer=processor.tokenizer,
        pictures=PictureTransform(processor.image_processor, choose(Aspect, cfg.LLAVA.ASPECT, "LLAVA.ASPECT")),
        image_ids=[processor.image_token_id] * picture_tokens(model),
        max_length=cfg.LLAVA.MAX_LENGTH,
    )
    return data, Collator(processor.tokenizer.pad_token_id)


def picture_tokens(model) -> int:
    """Number of tokens of a picture."""
    vision = model.config.vision_config
    return (vision.image_size // vision.patch_size) ** 2


def _train(cfg: CfgNode, conversations: list, template, data_factory: DataFactory, *, resume: bool) -> dict[str, dict]:
    from .build import load_llava, starting_folder
    from .parts import Adapters, describe_parts, select_trained
    from .trainer import LlavaTrainer, finished_steps, latest_checkpoint, total_steps, training_arguments

    seed = cfg.SEED if cfg.SEED >= 0 else int(comm.shared_random_seed()) % 2**31
    seed_all_rng(seed)
    parts = choose(TrainedParts, cfg.MODEL.LLAVA.TRAIN, "MODEL.LLAVA.TRAIN")
    arguments = training_arguments(cfg, comm.get_world_size(), seed)
    _require_same_processes(arguments.world_size)
    llava, processor = load_llava(starting_folder(cfg), cfg.MODEL.ENCODER.CHECKPOINT)
    _require_room(cfg, picture_tokens(llava))
    lora = cfg.MODEL.LLAVA.LORA
    model = select_trained(llava, parts, Adapters(lora.RANK, lora.ALPHA, lora.DROPOUT))
    logger.info("%s", describe_parts(model))
    if parts is TrainedParts.LORA:
        logger.warning(
            "Adapters are a recipe of their own. Never compare its figures with those of a whole language model."
        )
    data, collator = data_factory(
        cfg=cfg, conversations=conversations, template=template, model=llava, processor=processor
    )
    trainer = LlavaTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        data_collator=collator,
        processing_class=processor,
        lengths=modality_lengths(conversations) if cfg.LLAVA.GROUP_BY_MODALITY_LENGTH else None,
        average=choose(LossAverage, cfg.LLAVA.LOSS_AVERAGE, "LLAVA.LOSS_AVERAGE"),
        projector_rate=lora.PROJECTOR_LR if parts is TrainedParts.LORA else None,
    )
    final, steps = Path(cfg.OUTPUT_DIR) / FINAL, total_steps(arguments, len(data))
    if parts is TrainedParts.LORA and (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        raise ConfigurationError(
            "MODEL.LLAVA.TRAIN is 'projector_and_lora', and FSDP or DeepSpeed divides the weights that the adapters "
            "are merged into. Start by torchrun, each GPU with the whole model, or train "
            "'projector_and_language_model'."
        )
    checkpoint = latest_checkpoint(cfg.OUTPUT_DIR) if resume else None
    done = finished_steps(checkpoint, steps)
    if done >= steps:  # Trainer would do one more
        logger.info("%s is of step %d of %d: trained already.", checkpoint, done, steps)
        if not final.is_dir():
            trainer.load_weights(checkpoint)
            _write_final(trainer, final)
        return {"training": {"steps": done}}
    logger.info(
        "%d of %d steps are to do, each on %d conversations%s",
        steps - done,
        steps,
        cfg.SOLVER.IMS_PER_BATCH,
        "" if checkpoint is None else f", from {checkpoint}",
    )
    with lines_above_bars([logging.getLogger("denserc")]):
        trained = trainer.train_until_stopped(checkpoint)
    _write_final(trainer, final)
    return {"training": {"steps": trained.global_step, "loss": trained.training_loss}}


def _write_final(trainer, folder: Path) -> None:
    """Write the trained LLaVA with its processor, adapters merged; all processes call it."""
    partial = folder.with_name(f".{folder.name}.partial")
    if trainer.is_world_process_zero():
        shutil.rmtree(partial, ignore_errors=True)
    comm.synchronize()
    if hasattr(trainer.model, "merge_and_unload"):
        trainer.model = trainer.model_wrapped = trainer.model.merge_and_unload()
    trainer.model.config.use_cache = True  # Trainer turns it off for gradient checkpointing
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    with written_by_others(partial) if trainer.is_world_process_zero() else nullcontext():
        trainer.save_model(str(partial))
    if trainer.is_world_process_zero():
        (partial / "training_args.bin").unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
        logger.info("Wrote %s", folder)
    comm.synchronize()


def _evaluate_only(cfg: CfgNode, evaluator: Evaluator | None, *, resume: bool) -> dict[str, dict]:
    if evaluator is None:
        raise ConfigurationError("--eval-only needs questions. Set LLAVA.TEST.QUESTIONS and LLAVA.TEST.IMAGES.")
    if comm.get_world_size() > 1:
        raise ConfigurationError(
            f"--eval-only runs in one process, and {comm.get_world_size()} were started. `denserc answer --processes` "
            "shares the questions among GPUs."
        )
    folder = Path(cfg.OUTPUT_DIR) / FINAL if resume else Path(cfg.MODEL.WEIGHTS)
    if not resume and not cfg.MODEL.WEIGHTS:
        raise ConfigurationError(
            "--eval-only needs MODEL.WEIGHTS, the folder of a trained LLaVA, or --resume for OUTPUT_DIR/model."
        )
    if not folder.is_dir():
        raise CheckpointError(f"Nothing to evaluate: {folder} does not exist. Train first, or correct MODEL.WEIGHTS.")
    return evaluator(cfg, folder)


def _require_room(cfg: CfgNode, tokens: int) -> None:
    if tokens >= cfg.LLAVA.MAX_LENGTH:
        raise ConfigurationError(
            f"LLAVA.MAX_LENGTH is {cfg.LLAVA.MAX_LENGTH}, and a picture alone has {tokens} tokens. Raise it above that "
            "number by the length of question and answer."
        )


def _require_same_processes(found: int) -> None:
    """Refuse processes of Detectron2's launch, which leave out the variables that accelerate reads."""
    if found != comm.get_world_size():
        raise ConfigurationError(
            f"{comm.get_world_size()} processes were started, and accelerate found {found}. Leave out --num-gpus and "
            "start the command by torchrun or by `accelerate launch`."
        )


def _require_packages() -> None:
    """ConfigurationError where a package of the extra is absent; the message names the extra."""
    from ..mllm.requirements import require_training_packages

    require_training_packages()
