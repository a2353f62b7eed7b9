"""The product of a distillation: one checkpoint file, optionally a blend of student and teacher."""

from copy import deepcopy
from pathlib import Path

import torch

from ..construction import DenseEncoder, DenseModel, save_checkpoint
from ..encoders.towers.base import ImageTower
from ..structures import ConfigurationError, WeightsMismatchError

PRODUCT_NAME = "denserc.safetensors"


@torch.no_grad()
def blend(student: DenseEncoder, teacher: ImageTower, alpha: float) -> DenseEncoder:
    """Build a new encoder whose tower's weights are alpha * student + (1 - alpha) * teacher.

    Gates have no counterpart in the teacher and stay the student's. They were trained with the student's
    unblended values; the region accuracy measures how well they fit the blended ones.

    Args:
        student: Student; it is not changed.
        teacher: Tower of the same architecture.
        alpha: 0..1 (0.7 in CLIPSelf and DeCLIP); 1 copies the student.

    Raises:
        ConfigurationError: Alpha is outside 0..1.
        WeightsMismatchError: The towers differ in architecture.
    """
    if not 0 <= alpha <= 1:
        raise ConfigurationError(f"DISTILL.EXPORT_BLEND is the student's share and lies in 0..1; got {alpha}.")
    blended = deepcopy(student)
    if alpha == 1:
        return blended
    mine, theirs = blended.tower.state_dict(), teacher.state_dict()
    misshapen = [
        (k, theirs[k].shape, mine[k].shape) for k in mine.keys() & theirs.keys() if mine[k].shape != theirs[k].shape
    ]
    if mine.keys() != theirs.keys() or misshapen:
        raise WeightsMismatchError(
            "the teacher",
            missing=mine.keys() - theirs.keys(),
            unexpected=theirs.keys() - mine.keys(),
            misshapen=misshapen,
            advice="Only towers of one architecture can be blended; set DISTILL.EXPORT_BLEND to 1.",
        )
    for key, value in mine.items():
        if value.is_floating_point():
            value.mul_(alpha).add_(theirs[key].to(value), alpha=1 - alpha)
    return blended


def export(folder: str | Path, model: DenseModel, teacher: ImageTower, *, alpha: float, notes: dict) -> DenseModel:
    """Write `denserc.safetensors` into a folder.

    Args:
        folder: Folder to write to.
        model: The trained encoder with its text tower.
        teacher: The tower to blend with.
        alpha: See `blend`.
        notes: Plain JSON values about how it was made, kept in the file.

    Returns:
        The model that was written.
    """
    encoder = blend(model.encoder, teacher, alpha)
    product = DenseModel(encoder, model.text, model.logit_scale, {**model.extra, **notes, "export_blend": alpha})
    save_checkpoint(Path(folder) / PRODUCT_NAME, product)
    return product
