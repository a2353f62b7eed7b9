"""Training step of the meta-architectures, with randomness that depends on the step alone."""

from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from detectron2.engine import HookBase
from detectron2.structures import BitMasks
from detectron2.utils import comm

from ..engine import StepTrainer
from ..engine.solver import TrainedAverage


class OpenVocabularyTrainer(StepTrainer):
    """Trains an OpenVocabularyModel; see StepTrainer for other arguments.

    Every forward divides its losses by its own samples, in accumulation as in several processes and in the original:
    K accumulated batches are the step of K processes with the same batches, whose gradients are averaged.

    Args:
        autocast: dtype of the trained parts; None: float32.
        average: follows after each step.
    """

    def __init__(self, *, autocast: torch.dtype | None = None, average: TrainedAverage | None = None, **options):
        advice = "A lower SOLVER.BASE_LR, more SOLVER.WARMUP_ITERS or no SOLVER.AMP may help;"
        super().__init__(advice=advice, **options)
        self.autocast = autocast
        self.average = average

    def losses(self, batch: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Losses of the model's forward."""
        with nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast):
            return self.model(batch)

    def updated(self) -> None:
        """The average follows."""
        if self.average is not None:
            self.average.update()

    def keepsake(self, batch: Sequence[dict]) -> tuple[list[dict], int]:
        """Images as the network got them (uint8), ground truth as tensors, files by name."""
        return [_plain(one) for one in batch], len(batch)

    def state_dict(self) -> dict:
        """With the gradient scale, empty without fp16."""
        return {**super().state_dict(), "scaler": self.scaler.state_dict(), "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: dict) -> None:
        """Another SOLVER.AMP than before is allowed: it may be the way out of overflows."""
        super().load_state_dict(state)
        if state.get("scaler") and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        self.skipped_steps = state.get("skipped_steps", 0)


def _plain(one: dict) -> dict:
    """The parts of an input that a file of torch.save may hold: plain values, tensors, boxes and masks."""
    saved = {key: value for key, value in one.items() if isinstance(value, (str, int, float, torch.Tensor))}
    truth = one.get("instances")
    if truth is not None:
        saved["gt_boxes"], saved["gt_classes"] = truth.gt_boxes.tensor, truth.gt_classes
        if truth.has("gt_masks") and isinstance(truth.gt_masks, BitMasks):
            saved["gt_masks"] = truth.gt_masks.tensor
    return saved


class SeedEachStep(HookBase):
    """Makes a step's randomness a function of (seed, step, process), so that there is no state to save.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def before_step(self):
        """Seed PyTorch's generators."""
        draw = np.random.default_rng([self.seed, 2, self.trainer.iter, comm.get_rank()])
        torch.manual_seed(int(draw.integers(2**62)))
