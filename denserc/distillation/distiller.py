"""Student, frozen teacher, frozen foundation model and losses in one module.

Shape letters: B images, S the student's input side, N = h * w patch tokens, E the image-text
space, C the foundation model's width, K regions of one image, R regions of the batch.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import nn

from ..construction import DenseEncoder
from ..encoders.towers.base import FoundationModel, ImageTower
from ..structures import ConfigurationError, PixelStatistics, weights_digest
from .data.batch import DistillationBatch
from .losses import CoherenceFeatures, CoherenceReading, PooledMap, coherence_loss, pool_regions, semantics_loss
from .target_cache import TargetMemory


def foundation_input_size(student_size: int, student_patch: int, foundation_patch: int) -> int:
    """The foundation model's input side with as many tokens as the student's (1024 / 16 * 14 = 896)."""
    if student_size % student_patch:
        tokens = student_size // student_patch
        fits = [
            f"{n * student_patch} (the foundation model then sees {n * foundation_patch})"
            for n in (tokens, tokens + 1)
            if n
        ]
        raise ConfigurationError(
            f"The student's input of {student_size} is not a multiple of its patch size {student_patch}; "
            f"the nearest that fit are {' and '.join(fits)}."
        )
    return student_size // student_patch * foundation_patch


class Distiller(nn.Module):
    """Module that computes the losses of one batch. Only the student is trained.

    Args:
        student: The dense encoder being trained.
        teacher: A frozen CLIP image tower of the same image-text space.
        foundation: The frozen model that L_coherence follows, or None to leave that loss out.
        semantics_weight: Weight of L_semantics; 0 omits it.
        coherence_weight: Lambda of L_coherence (0.025 in the paper); 0 leaves it out.
        pooled_map: Map that the regions are pooled from.
        reading: Reading of Eq. 20.
        coherence_features: Student's features of L_coherence.
        mask_padding: True to ignore the tokens of the padding in L_coherence.
        teacher_final_mlp: True to pass the teacher's class token through the MLP of its last block (Table 13).
        crops_per_forward: Number of crops in one forward of the teacher; 0 for all of the batch.
        autocast: Dtype of the towers' arithmetic (bfloat16, float16); None = as they are. Losses are float32.
        memory: Cache of the frozen models' outputs, shared by several trainings; None for no cache.
    """

    def __init__(
        self,
        *,
        student: DenseEncoder,
        teacher: ImageTower,
        foundation: FoundationModel | None,
        semantics_weight: float = 1.0,
        coherence_weight: float = 0.025,
        pooled_map: PooledMap = PooledMap.RAW,
        reading: CoherenceReading = CoherenceReading.MSE,
        coherence_features: CoherenceFeatures = CoherenceFeatures.DENSE,
        mask_padding: bool = False,
        teacher_final_mlp: bool = True,
        crops_per_forward: int = 0,
        autocast: torch.dtype | None = None,
        memory: TargetMemory | None = None,
    ):
        super().__init__()
        if semantics_weight <= 0 and (coherence_weight <= 0 or foundation is None):
            raise ConfigurationError("Distillation needs at least one loss; both are switched off.")
        if coherence_weight > 0 and foundation is None:
            raise ConfigurationError("L_coherence needs a foundation model; give one or set its weight to 0.")
        if semantics_weight > 0 and teacher.embed_dim != student.embed_dim:
            raise ConfigurationError(
                f"Teacher and student must share one image-text space; their widths are {teacher.embed_dim} "
                f"and {student.embed_dim}."
            )
        if crops_per_forward < 0:
            raise ConfigurationError(
                f"DISTILL.TEACHER.CROPS_PER_FORWARD is a number of crops, or 0 for all; got {crops_per_forward}."
            )
        self.student = student
        self.teacher = teacher.requires_grad_(False)
        self.foundation = foundation if coherence_weight > 0 else None
        if self.foundation is not None:
            self.foundation.requires_grad_(False)
        self.semantics_weight = semantics_weight
        self.coherence_weight = coherence_weight
        self.pooled_map = pooled_map
        self.reading = reading
        self.coherence_features = coherence_features
        self.mask_padding = mask_padding
        self.teacher_final_mlp = teacher_final_mlp
        self.crops_per_forward = crops_per_forward
        self.autocast_dtype = autocast
        self._memory = memory
        frozen = {"teacher": self.teacher, "foundation": self.foundation} if memory is not None else {}
        self._identities = {
            name: f"{weights_digest(model)} {model.pixels} {autocast} {teacher_final_mlp}"
            for name, model in frozen.items()
            if model is not None
        }
        self.train()

    def train(self, mode: bool = True) -> "Distiller":
        """Set the student's mode; teacher and foundation model stay in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        if self.foundation is not None:
            self.foundation.eval()
        return self

    def forward(self, batch: DistillationBatch, normalizer: float | None = None) -> dict[str, torch.Tensor]:
        """The weighted losses of one batch.

        Args:
            batch: Batch on the module's device.
            normalizer: See `semantics_loss`.

        Returns:
            "loss_semantics" and "loss_coherence", those that are switched on; their sum is the total loss.
        """
        # The frozen models first: what they need in passing is free again before the student keeps its activations.
        taught = self.teach(batch.crops) if self.semantics_weight > 0 else None
        target = self.observe(batch.foundation_images) if self.foundation is not None else None  # (B, C, h, w)
        with self._autocast(batch.images.device):
            dense, correlated = self.view(batch.images)
        losses = {}
        if taught is not None:
            regions = pool_regions(dense, batch.boxes, self.pooled_map)  # (R, E)
            losses["loss_semantics"] = self.semantics_weight * semantics_loss(regions, taught, normalizer)
        if target is not None:
            if target.shape[-2:] != dense.shape[-2:]:
                raise ConfigurationError(
                    f"The token grids differ: student {tuple(dense.shape[-2:])}, foundation model "
                    f"{tuple(target.shape[-2:])} of inputs {tuple(batch.images.shape[-2:])} and "
                    f"{tuple(batch.foundation_images.shape[-2:])}."
                )
            mask = batch.content_mask(tuple(dense.shape[-2:])).flatten(1) if self.mask_padding else None
            target = target.flatten(2).mT.repeat_interleave(len(correlated) // len(target), dim=0)
            if mask is not None:
                mask = mask.repeat_interleave(len(correlated) // len(mask), dim=0)
            loss = coherence_loss(correlated, target, self.reading, mask)
            losses["loss_coherence"] = self.coherence_weight * loss
        return losses

    def view(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The student's features of (B, 3, S, S) uint8 images, float32.

        Returns:
            (B, E, h, w) dense features, and what L_coherence correlates: (B * G, N, C), G groups of heads of one image
            after another.
        """
        images = normalized(images, self.student.tower.pixels)
        if self.coherence_features is CoherenceFeatures.DENSE or self.foundation is None:
            dense = self.student(images).float()
            return dense, dense.flatten(2).mT
        dense, context = self.student.forward_with_context(images)
        return dense.float(), context.float().flatten(0, 1)

    def teach(self, crops: torch.Tensor) -> torch.Tensor:
        """(R, 3, T, T) uint8 crops -> (R, E) float32, the teacher's image embeddings."""

        def encode(some: torch.Tensor) -> torch.Tensor:
            return self.teacher.encode_image(normalized(some, self.teacher.pixels), self.teacher_final_mlp).float()

        parts = crops.split(self.crops_per_forward or max(1, len(crops)))
        return self._ask("teacher", crops, lambda: torch.cat([encode(part) for part in parts]))

    def observe(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) uint8 -> (B, C, h, w) float32, the foundation model's patch features."""
        return self._ask(
            "foundation", images, lambda: self.foundation(normalized(images, self.foundation.pixels)).float()
        )

    def _ask(self, model: str, images: torch.Tensor, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Output of a frozen model, computed in inference mode unless it is cached."""

        def frozen() -> torch.Tensor:
            with torch.inference_mode(), self._autocast(images.device):
                features = compute()
            return features.clone()  # a normal tensor, which autograd may keep for the backward pass

        return frozen() if self._memory is None else self._memory.recall(self._identities[model], images, frozen)

    def _autocast(self, device: torch.device) -> AbstractContextManager:
        return torch.autocast(device.type, self.autocast_dtype, enabled=self.autocast_dtype is not None)


def normalized(images: torch.Tensor, pixels: PixelStatistics) -> torch.Tensor:
    """uint8 0..255 -> float32, normalized for a tower."""
    return pixels.normalize(images.float() / 255)
