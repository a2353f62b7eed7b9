"""Hugging Face's Trainer with LLaVA's order of examples, its average of the loss, and one log for all of DenseRC."""

import json
import logging
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from transformers import LlavaForConditionalGeneration, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from ..engine import Precision, resolve_device, shield_worker
from ..engine.config import configured_clip_norm, configured_precision, images_per_forward
from ..engine.stopping import StopSignals, stopped
from ..structures import CheckpointError, ConfigurationError, WriteError, write_errors
from .collator import CUT
from .options import LossAverage
from .parts import parameter_groups
from .sampling import ConversationSampler
from .templates import IGNORED

logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"


def training_arguments(cfg: CfgNode, processes: int, seed: int) -> TrainingArguments:
    """The recipe of a configuration as arguments of Hugging Face's Trainer.

    Args:
        processes: Number of processes that train together.
        seed: Seed of the run.

    Raises:
        ConfigurationError: A batch that cannot be divided, no steps, or a precision that the device does not have.
    """
    if not cfg.LLAVA.EPOCHS and not cfg.SOLVER.MAX_ITER:
        raise ConfigurationError("LLAVA.EPOCHS and SOLVER.MAX_ITER are both 0: there is no step. Set one of them.")
    device, precision = resolve_device(cfg.MODEL.DEVICE), configured_precision(cfg)
    precision.require_device(device, "SOLVER.AMP.PRECISION")
    on_gpu = device.type == "cuda"
    ratio = cfg.LLAVA.WARMUP_RATIO
    return TrainingArguments(
        output_dir=cfg.OUTPUT_DIR,
        per_device_train_batch_size=images_per_forward(cfg, processes),
        gradient_accumulation_steps=cfg.SOLVER.ACCUMULATE,
        num_train_epochs=cfg.LLAVA.EPOCHS or 1.0,
        max_steps=-1 if cfg.LLAVA.EPOCHS else cfg.SOLVER.MAX_ITER,
        learning_rate=cfg.SOLVER.BASE_LR,
        weight_decay=cfg.SOLVER.WEIGHT_DECAY,
        adam_beta1=cfg.SOLVER.BETAS[0],
        adam_beta2=cfg.SOLVER.BETAS[1],
        adam_epsilon=cfg.SOLVER.EPS,
        max_grad_norm=configured_clip_norm(cfg) or 0.0,
        lr_scheduler_type="cosine",
        warmup_steps=ratio or cfg.SOLVER.WARMUP_ITERS,  # a number below 1 is a share of all steps
        bf16=precision is Precision.BF16,
        fp16=precision is Precision.FP16,
        tf32=True if on_gpu and torch.cuda.get_device_capability()[0] >= 8 else None,
        use_cpu=not on_gpu,
        **(_checkpointing() if cfg.LLAVA.GRADIENT_CHECKPOINTING else {}),
        ddp_find_unused_parameters=False,
        dataloader_num_workers=cfg.DATALOADER.NUM_WORKERS,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        save_strategy="steps" if cfg.SOLVER.CHECKPOINT_PERIOD > 0 else "no",
        save_steps=max(cfg.SOLVER.CHECKPOINT_PERIOD, 1),
        save_total_limit=1,
        logging_steps=cfg.LLAVA.LOG_PERIOD,
        logging_nan_inf_filter=False,
        report_to="none",
        seed=seed,
        data_seed=seed,
    )


def _checkpointing() -> dict[str, Any]:
    """Gradient checkpointing under the name that this version of transformers gives it."""
    renamed = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    name = "activation_checkpointing" if renamed else "gradient_checkpointing"
    return {name: True, f"{name}_kwargs": {"use_reentrant": False}}


def total_steps(arguments: TrainingArguments, examples: int) -> int:
    """Number of steps of a training on that many examples."""
    if arguments.max_steps > 0:
        return arguments.max_steps
    passes = math.ceil(examples / (arguments.per_device_train_batch_size * arguments.world_size))
    return math.ceil(arguments.num_train_epochs * math.ceil(passes / arguments.gradient_accumulation_steps))


def finished_steps(checkpoint: Path | None, steps: int) -> int:
    """Number of steps that a checkpoint has done, of a training of `steps`; 0 without one."""
    if checkpoint is None:
        return 0
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    if state["max_steps"] != steps:
        logger.warning(
            "%s is of a training of %d steps, and this one has %d: the learning rate goes on by the new number.",
            checkpoint,
            state["max_steps"],
            steps,
        )
    return state["global_step"]


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The newest complete checkpoint of a training; None if there is none.

    One whose writing was interrupted lacks the file that is written last, or has a part of it, and is passed over.
    """
    found = [path.parent for path in Path(folder).glob(f"checkpoint-*/{_STATE}") if _is_whole(path)]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_whole(state: Path) -> bool:
    try:
        return isinstance(json.loads(state.read_text(encoding="utf-8")), dict)
    except ValueError:
        return False


class LlavaTrainer(Trainer):
    """Trains a LLaVA whose learning parts are selected.

    Args:
        lengths: Signed lengths of the examples to group them by; None: random order.
        average: Weights of the tokens in a step's loss.
        projector_rate: Learning rate of the projector if it differs from the others'.
        options: Those of Hugging Face's Trainer.
    """

    def __init__(
        self,
        *,
        lengths: list[int] | None = None,
        average: LossAverage = LossAverage.FORWARD,
        projector_rate: float | None = None,
        **options,
    ):
        super().__init__(**options)
        self._lengths = lengths
        self._projector_rate = projector_rate
        # With it, Trainer divides a step's summed loss by all its tokens; without, it averages forward passes.
        self.model_accepts_loss_kwargs = average is LossAverage.TOKENS
        self._cut = 0
        self.remove_callback(ProgressCallback)
        self.add_callback(_ProgressBar())
        if self.is_world_process_zero():
            self.add_callback(_MetricsFile(Path(self.args.output_dir) / "metrics.json"))
            self.add_callback(TensorBoardCallback(SummaryWriter(self.args.output_dir)))

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over what learns, the projector with its own rate where it has one."""
        if self._projector_rate is None or self.optimizer is not None:
            return super().create_optimizer(model)
        made, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        rate = options.pop("lr")
        groups = parameter_groups(model or self.model, rate, self._projector_rate, self.args.weight_decay)
        self.optimizer = made(groups, lr=rate, **options)
        return self.optimizer

    def compute_loss(self, model, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None):
        """Loss of a forward pass; zero where the cut left nothing to learn, which would be a mean over nothing."""
        self._cut += inputs.pop(CUT, 0)
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        if not (inputs["labels"][:, 1:] != IGNORED).any():
            loss = 0.0 * outputs.logits.float().sum()
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self) -> DataLoader:
        """The loader, whose workers outlive a signal to all processes of the training."""
        loader = super().get_train_dataloader()
        loader.worker_init_fn = partial(_init_worker, loader.worker_init_fn)
        return loader

    def train_until_stopped(self, checkpoint: Path | None) -> TrainOutput:
        """Train; SIGTERM and Ctrl-C end it after a step, with a checkpoint.

        Raises:
            TrainingStopped: A signal has come.
        """
        callback = _StopOnSignal(self.args.device)
        self.add_callback(callback)
        try:
            result = self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            callback.signals.end()
            self.remove_callback(callback)
        if callback.number:
            raise stopped(callback.number, self.state.global_step, self.state.max_steps, self.args.output_dir)
        return result

    def training_step(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """One forward and backward pass.

        Raises:
            FloatingPointError: The loss is not finite.
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"The loss is {loss.item()} after {self.state.global_step} steps. A lower SOLVER.BASE_LR or "
                f"SOLVER.CLIP_GRADIENTS may help; --resume continues from the last checkpoint in "
                f"{self.args.output_dir}."
            )
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log with the number of sequences that were cut, over all processes since the start of this run."""
        if "loss" in logs:
            cut = torch.tensor(float(self._cut), device=self.args.device)
            logs["cut_sequences"] = int(self.accelerator.reduce(cut, "sum"))
            logger.info(
                "step %d of %d: loss %.4f, learning rate %.3g, %d sequences cut",
                self.state.global_step,
                self.state.max_steps,
                logs["loss"],
                logs.get("learning_rate", math.nan),
                logs["cut_sequences"],
            )
        super().log(logs, start_time)

    def _get_train_sampler(self, train_dataset=None) -> ConversationSampler:
        data = self.train_dataset if train_dataset is None else train_dataset
        return ConversationSampler(
            len(data),
            seed=self.args.seed,
            lengths=self._lengths,
            batch=self.args.per_device_train_batch_size,
            batches=self.args.world_size * self.args.gradient_accumulation_steps,
        )

    def _save_checkpoint(self, *arguments, **options) -> None:
        """Save a checkpoint; what is written of one is removed if the disk is full.

        Raises:
            WriteError: The folder cannot be written to.
        """
        folder = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            with write_errors(folder):
                super()._save_checkpoint(*arguments, **options)
        except WriteError:
            if self.is_world_process_zero():
                shutil.rmtree(folder, ignore_errors=True)
            raise

    def load_weights(self, checkpoint: Path) -> None:
        """Load the weights of a checkpoint, without training.

        Raises:
            CheckpointError: They belong to another model, or are shared by processes.
        """
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise CheckpointError(
                f"{checkpoint} has done all steps, but its weights are divided among processes. Remove it, so that "
                "--resume repeats the last steps, or start one process without FSDP and DeepSpeed."
            )
        self._load_from_checkpoint(str(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """Load weights exactly.

        A saved LLaVA has other names than the model in memory. Trainer would load what fits and leave the rest.
        """
        target = self.model if model is None else model
        if self.is_fsdp_enabled or not isinstance(target, LlavaForConditionalGeneration):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        saved = LlavaForConditionalGeneration.from_pretrained(
            resume_from_checkpoint, dtype=torch.float32, local_files_only=True
        )
        try:
            target.load_state_dict(saved.state_dict())
        except RuntimeError as error:
            raise CheckpointError(f"{resume_from_checkpoint} belongs to another model: {error}") from error


class _ProgressBar(ProgressCallback):
    """The bar of Trainer, with the loss beside it instead of a line per log."""

    def on_log(self, args, state, control, logs=None, **keywords) -> None:
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.4f}", refresh=False)


class _StopOnSignal(TrainerCallback):
    """Ends a training after the step in which a signal came, with a checkpoint."""

    def __init__(self, device: torch.device):
        self.device = device
        self.signals = StopSignals()
        self.number = 0

    def on_train_begin(self, args, state, control, **keywords) -> None:
        self.signals.begin()

    def on_step_end(self, args, state, control, **keywords) -> None:
        self.number = self.signals.agreed(self.device)
        if self.number:
            control.should_save = control.should_training_stop = True


def _init_worker(before: Callable[[int], None] | None, worker: int) -> None:
    if before is not None:
        before(worker)
    shield_worker(worker)


class _MetricsFile(TrainerCallback):
    """A line of JSON per log, as the other trainings write."""

    def __init__(self, path: Path):
        self.path = path

    def on_log(self, args, state, control, logs=None, **keywords) -> None:
        with write_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": state.global_step, **(logs or {})}) + "\n")
