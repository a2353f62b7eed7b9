"""Plain implementation of CLIPSelf, DeCLIP and F-ViT: the alternative that DenseRC is measured against.

The weights and the parts of a block are DenseRC's own, so both compute the same numbers (tests/benchmarks). The order
and kind of computation is theirs; docs/SPEED.md lists it point by point. Shape letters as in
`denserc.encoders.towers.base`.
"""

from collections.abc import Callable
from enum import Enum

import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import functional as TF

from denserc.construction import DenseEncoder
from denserc.construction.choices import ValueModule, ValueSource
from denserc.distillation.data.batch import DistillationBatch
from denserc.distillation.distiller import Distiller, normalized
from denserc.distillation.losses import pool_regions, semantics_loss
from denserc.encoders import ImageTower, TokenStream, merge_heads
from denserc.structures import ConfigurationError, PixelStatistics


class Attention(Enum):
    """Implementation of attention in the reference."""

    EXPLICIT = "explicit"  # the matrix itself, as CLIPSelf and DeCLIP without xformers (on a CPU)
    FUSED = "fused"  # PyTorch's memory-efficient attention, as both with xformers (on a GPU)


def explicit(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v with the (B, A, T, T) matrix in memory."""
    return ((q * q.shape[-1] ** -0.5) @ k.mT).softmax(dim=-1) @ v


_ATTENTION: dict[Attention, Callable[..., torch.Tensor]] = {
    Attention.EXPLICIT: explicit,
    Attention.FUSED: F.scaled_dot_product_attention,
}


def block(tower: ImageTower, index: int, stream: TokenStream, attention: Attention):
    """A whole block: the stream after it, LN(x) and the values."""
    normed, v = tower.values(index, stream.tokens)
    q, k = tower.queries_keys(index, normed, stream, rotary=True)
    attended = merge_heads(_ATTENTION[attention](q, k, v))
    x = stream.tokens + tower.output_projection(index, tower.inner_norm(index, attended))
    return stream.with_tokens(tower.mlp(index, x)), normed, v


def encode_image(tower: ImageTower, images: torch.Tensor, attention: Attention) -> torch.Tensor:
    """The global embedding: every block for every token."""
    stream = tower.embed(images)
    for index in range(tower.depth):
        stream, _, _ = block(tower, index, stream, attention)
    return tower.pool(stream)


def dense(encoder: DenseEncoder, images: torch.Tensor, attention: Attention) -> torch.Tensor:
    """The dense features of DenseRC or CLIPSelf: (B, E, h, w).

    DenseRC: every block runs whole, the last included, as in a tower whose forward returns what the blocks made; the
    values of the last k are then gated, projected and added. CLIPSelf: its last block is x + Proj(v) and the MLP, for
    all tokens, as in its code.
    """
    tower, way = encoder.tower, construction_of(encoder)
    stream = tower.embed(images)
    if way == "clipself":
        for index in range(tower.depth - 1):
            stream, _, _ = block(tower, index, stream, attention)
        x = without_attention(tower, stream, final_mlp=encoder.construction.final_mlp)
    else:
        x = 0
        for index in range(tower.depth):
            stream, normed, v = block(tower, index, stream, attention)
            x = x + gated_values(encoder, index, normed, v)
    return stream.to_map(tower.to_text_space(x)[:, stream.prefix :])


def construction_of(encoder: DenseEncoder) -> str:
    """ "denserc" or "clipself".

    Raises:
        ConfigurationError: The encoder has another construction.
    """
    choice = encoder.construction
    if choice.values is ValueSource.LAST_BLOCK_RESIDUAL and choice.module is ValueModule.NONE:
        return "clipself"
    if choice.values is ValueSource.LAST_K_BLOCKS and choice.module is ValueModule.HSG and not choice.final_mlp:
        return "denserc"
    raise ConfigurationError(f"The reference knows 'denserc' and 'clipself'; got {choice}.")


def without_attention(tower: ImageTower, stream: TokenStream, final_mlp: bool = True) -> torch.Tensor:
    """The last block's x + Proj(v) and its MLP for all tokens."""
    last = tower.depth - 1
    _, v = tower.values(last, stream.tokens)
    x = stream.tokens + tower.output_projection(last, tower.inner_norm(last, merge_heads(v)))
    return tower.mlp(last, x) if final_mlp else x


def gated_values(encoder: DenseEncoder, index: int, normed: torch.Tensor, v: torch.Tensor) -> torch.Tensor | int:
    """One block's part of DenseRC's sum, for all tokens; 0 before the last k blocks."""
    tower = encoder.tower
    position = index - (tower.depth - encoder.construction.num_blocks)
    if position < 0:
        return 0
    gated = merge_heads(v * encoder.gates(position, normed))
    return tower.output_projection(index, tower.inner_norm(index, gated))


class ReferenceDistiller(nn.Module):
    """Losses of a `Distiller`, computed as in CLIPSelf and DeCLIP; shares its modules and replaces it in a trainer."""

    def __init__(self, distiller: Distiller, attention: Attention):
        super().__init__()
        self.distiller = distiller
        self.attention = attention
        for module in distiller.foundation.modules() if distiller.foundation is not None else ():
            if hasattr(module, "fused_attn"):  # timm's switch
                module.fused_attn = attention is Attention.FUSED

    @property
    def teacher(self) -> nn.Module:
        """The distiller's, for a trainer that looks for it."""
        return self.distiller.teacher

    def forward(self, batch: DistillationBatch, normalizer: float | None = None) -> dict[str, torch.Tensor]:
        """Same result as `Distiller.forward`."""
        whole = self.distiller
        autocast = whole.autocast_dtype
        with torch.autocast(batch.images.device.type, autocast, enabled=autocast is not None):
            images = normalized(batch.images, whole.student.tower.pixels)
            features = dense(whole.student, images, self.attention).float()
            with torch.no_grad():
                crops = normalized(batch.crops, whole.teacher.pixels)
                targets = encode_image(whole.teacher, crops, self.attention).float()
                seen = None
                if whole.foundation is not None:
                    seen = whole.foundation(normalized(batch.foundation_images, whole.foundation.pixels)).float()
        regions = pool_regions(features, batch.boxes, whole.pooled_map)
        losses = {"loss_semantics": whole.semantics_weight * semantics_loss(regions, targets, normalizer)}
        if seen is not None:
            x, y = F.normalize(features.flatten(2).mT, dim=-1), F.normalize(seen.flatten(2).mT, dim=-1)
            losses["loss_coherence"] = whole.coherence_weight * F.mse_loss(x @ x.mT, y @ y.mT)  # N x N, both
        return losses


def plain_optimizer(optimizer: torch.optim.AdamW) -> torch.optim.AdamW:
    """The same optimizer as CLIPSelf and DeCLIP build it, without the fused update."""
    for group in optimizer.param_groups:
        group["fused"] = False
    return optimizer


def pil_views(
    path: str, boxes: torch.Tensor, *, student: int, foundation: int, crop: int, pixels: PixelStatistics
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the two squares and the crops as CLIPSelf's and DeCLIP's transforms do.

    PIL resizes them one by one; every view becomes float32 and is normalized on the CPU, in the loader.
    """

    def to_float(image: Image.Image) -> torch.Tensor:
        return TF.normalize(TF.to_tensor(image), pixels.mean, pixels.std)

    def square(image: Image.Image, side: int) -> torch.Tensor:
        scale = side / max(image.size)
        width, height = (min(side, max(1, round(length * scale))) for length in image.size)
        canvas = Image.new("RGB", (side, side))
        canvas.paste(image.resize((width, height), Image.Resampling.BICUBIC), (0, 0))
        return to_float(canvas)

    with Image.open(path) as file:
        image = file.convert("RGB")
    width, height = image.size
    corners = (boxes * boxes.new_tensor([width, height, width, height])).round().int().tolist()
    crops = [to_float(image.crop(c).resize((crop, crop), Image.Resampling.BICUBIC)) for c in map(tuple, corners)]
    return square(image, student), square(image, foundation), torch.stack(crops)
