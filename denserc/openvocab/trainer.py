"""Training step of the meta-architectures."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from detectron2.structures import BitMasks

from ..data.images.tolerance import UnreadableMonitor
from ..engine import StepTrainer
from ..engine.stream import UNREADABLE


class OpenVocabularyTrainer(StepTrainer):
    """Training of an OpenVocabularyModel; see StepTrainer for other arguments.

    Every forward divides its losses by its own samples, in accumulation as in several processes and in MMDetection:
    K accumulated batches are the step of K processes with the same batches, whose gradients are averaged.

    Args:
        autocast: Dtype of the trained parts; None: float32.
        monitor: Counts unreadable images; told of them once per step.
    """

    def __init__(self, *, monitor: UnreadableMonitor, autocast: torch.dtype | None = None, **options):
        advice = "A lower SOLVER.BASE_LR, more SOLVER.WARMUP_ITERS or no SOLVER.AMP may help;"
        super().__init__(advice=advice, **options)
        self.autocast = autocast
        self.monitor = monitor

    def prepare(self, batches: Sequence[Sequence[dict]]) -> None:
        """Record unreadable images.

        Raises:
            DataError: Too many unreadable images.
        """
        self.monitor.see(entry for batch in batches for one in batch for entry in one.pop(UNREADABLE, ()))

    def losses(self, batch: Sequence[dict]) -> dict[str, torch.Tensor]:
        """Losses of the model's forward."""
        with nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast):
            return self.model(batch)

    def snapshot(self, batch: Sequence[dict]) -> tuple[list[dict], int]:
        """Images as the network got them (uint8), ground truth as tensors, files by name."""
        return [_plain(one) for one in batch], len(batch)

    def state_dict(self) -> dict:
        """State with the unreadable images; all processes call it."""
        return {**super().state_dict(), UNREADABLE: dict(self.monitor.reasons)}

    def load_state_dict(self, state: dict) -> None:
        """Load a state; see StepTrainer."""
        super().load_state_dict(state)
        self.monitor.reasons.update(state.get(UNREADABLE, {}))


def _plain(one: dict) -> dict:
    """The parts of an input that a file of torch.save may hold: plain values, tensors, boxes and masks."""
    saved = {key: value for key, value in one.items() if isinstance(value, (str, int, float, torch.Tensor))}
    truth = one.get("instances")
    if truth is not None:
        saved["gt_boxes"], saved["gt_classes"] = truth.gt_boxes.tensor, truth.gt_classes
        if truth.has("gt_masks") and isinstance(truth.gt_masks, BitMasks):
            saved["gt_masks"] = truth.gt_masks.tensor
    return saved
