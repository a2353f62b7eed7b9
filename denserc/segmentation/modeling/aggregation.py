"""CAT-Seg's aggregator: from dense features and text embeddings to one logit map per class.

Shape letters: B images (or windows), T classes, P prompts per class, E width of the image-text space, (h, w) feature
grid, C channels, S the largest number of classes that the layers take, F = 2^(number of decoders).
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from ...construction import GradientCheckpointing
from ...structures import ConfigurationError
from .chunks import in_chunks
from .classes import ClassAggregation, ClassAttention
from .decoder import UpsamplingDecoder
from .options import ClassAttentionKind
from .spatial import SpatialAggregation

DROPPED = -100.0
"""Logit of a class that is not among an image's S best."""

CPU_CHUNK, OTHER_CHUNK = 16, 128
"""Maps (B T) that are computed at once on a CPU, whose caches they should fit, and on other devices."""


class AggregatorLayer(nn.Module):
    """Spatial aggregation, then class aggregation.

    Args:
        spatial, classes: The two parts.

    Attributes:
        gradient_checkpointing: Part of the layer that the backward pass recomputes.
    """

    def __init__(self, *, spatial: SpatialAggregation, classes: ClassAggregation):
        super().__init__()
        self.spatial = spatial
        self.classes = classes
        self.gradient_checkpointing = GradientCheckpointing.NONE

    def forward(
        self,
        x: torch.Tensor,
        appearance: torch.Tensor,
        text_guidance: torch.Tensor,
        *,
        pooling: tuple[int, int],
        chunk: int,
    ) -> torch.Tensor:
        """(B, T, h, w, C) maps, (B, h, w, .) and (B, T, .) guidance -> (B, T, h, w, C); see ClassAggregation."""
        at_once = max(1, chunk // len(x))  # classes
        x = in_chunks(lambda maps: self.spatial(maps, appearance), x, 1, at_once, self.gradient_checkpointing)
        return self.classes(x, text_guidance, pooling=pooling, chunk=chunk)


class Aggregator(nn.Module):
    """Cost volume, embedding, layers, decoders, head.

    Classes interact only in the class aggregation. Without gradient, and where a backward pass
    recomputes, everything else runs in chunks of classes.

    Args:
        embed_dim: Width E of the embeddings.
        channels: Number C of channels per class.
        appearance_channels, text_channels: Channels of the projected guidance from dense features and text.
        num_layers, num_heads, window, attention: Options of the layers.
        decoder_channels: Output channels of each decoder.
        guidance_channels: Channels of each decoder's guidance as given.
        projected_channels: The same after projection.
        training_pooling, test_pooling: (h, w) of the average pooling in the class aggregation.
        class_limit: S ("pad_len" in CAT-Seg). With fewer classes, learned padding tokens fill up to S; of more, each
            image keeps its S best by their largest cosine and the others get the logit DROPPED. 0: neither.
        num_prompts: Number P of prompts per class.
        chunk: Maps (B T) that are computed at once without gradient or with gradient checkpointing; 0: CPU_CHUNK or
            OTHER_CHUNK.

    Attributes:
        gradient_checkpointing: Part that the backward pass recomputes, see `set_gradient_checkpointing`.
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        channels: int = 128,
        appearance_channels: int = 128,
        text_channels: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        window: int = 12,
        attention: ClassAttentionKind = ClassAttentionKind.LINEAR,
        decoder_channels: Sequence[int] = (64, 32),
        guidance_channels: Sequence[int] = (256, 128),
        projected_channels: Sequence[int] = (32, 16),
        training_pooling: tuple[int, int] = (2, 2),
        test_pooling: tuple[int, int] = (1, 1),
        class_limit: int = 256,
        num_prompts: int = 1,
        chunk: int = 0,
    ):
        super().__init__()
        if not len(decoder_channels) == len(guidance_channels) == len(projected_channels):
            raise ConfigurationError(
                "Every decoder needs its output channels, its guidance's channels and their projection; got "
                f"{list(decoder_channels)}, {list(guidance_channels)}, {list(projected_channels)}."
            )
        if channels % num_heads:
            raise ConfigurationError(f"{channels} channels cannot be divided among {num_heads} heads.")
        inputs = [channels, *decoder_channels][: len(projected_channels)]
        if any(projected >= given for projected, given in zip(projected_channels, inputs, strict=True)):
            raise ConfigurationError(
                f"The decoders have {inputs} input channels and {list(projected_channels)} channels of guidance; "
                "expected are fewer of guidance. See MODEL.CATSEG.HIDDEN_DIM, .DECODER_DIMS and .PROJECTED_DIMS."
            )
        self.training_pooling = tuple(training_pooling)
        self.test_pooling = tuple(test_pooling)
        self.class_limit = class_limit
        self.chunk = chunk
        self.gradient_checkpointing = GradientCheckpointing.NONE
        self.embedding = nn.Conv2d(num_prompts, channels, kernel_size=7, padding=3)
        self.appearance_projection = nn.Sequential(nn.Conv2d(embed_dim, appearance_channels, 3, padding=1), nn.ReLU())
        self.text_projection = nn.Sequential(nn.Linear(embed_dim, text_channels), nn.ReLU())
        self.guidance_projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(given, projected, 3, padding=1), nn.ReLU())
            for given, projected in zip(guidance_channels, projected_channels, strict=True)
        )
        self.layers = nn.ModuleList(
            AggregatorLayer(
                spatial=SpatialAggregation(
                    channels=channels, guidance_channels=appearance_channels, num_heads=num_heads, window=window
                ),
                classes=ClassAggregation(
                    attention=ClassAttention(
                        channels=channels, guidance_channels=text_channels, num_heads=num_heads, kind=attention
                    ),
                    channels=channels,
                    guidance_channels=text_channels,
                    padded_length=class_limit,
                ),
            )
            for _ in range(num_layers)
        )
        widths = [channels, *decoder_channels]
        self.decoders = nn.ModuleList(
            UpsamplingDecoder(channels=given, out_channels=out, guidance_channels=guidance)
            for given, out, guidance in zip(widths, decoder_channels, projected_channels, strict=False)
        )
        self.head = nn.Conv2d(widths[-1], 1, kernel_size=3, padding=1)

    def forward(self, dense: torch.Tensor, guidance: Sequence[torch.Tensor], text: torch.Tensor) -> torch.Tensor:
        """One logit map per class.

        Args:
            dense: (B, E, h, w) dense image features.
            guidance: One map per decoder; decoder i takes (B, ., 2^(i+1) h, 2^(i+1) w).
            text: (T, P, E) unit text embeddings.

        Returns:
            (B, T, F h, F w) logits.
        """
        cost = cost_volume(dense, text)  # (B, P, T, h, w)
        text_guidance = self.text_projection(F.normalize(text.mean(dim=1), dim=-1))  # (T, G)
        kept = self.best_classes(cost)  # (B, S) or None
        if kept is None:
            return self._logits(dense, guidance, cost, text_guidance.expand(len(cost), -1, -1))
        index = kept[:, None, :, None, None].expand(-1, cost.shape[1], -1, *cost.shape[3:])
        logits = self._logits(dense, guidance, cost.gather(2, index), text_guidance[kept])
        whole = logits.new_full((len(cost), cost.shape[2], *logits.shape[2:]), DROPPED)
        return whole.scatter(1, kept[:, :, None, None].expand_as(logits), logits)

    def maps_at_once(self, device: torch.device) -> int:
        """`chunk`, or the default of the device."""
        return self.chunk or (CPU_CHUNK if device.type == "cpu" else OTHER_CHUNK)

    def set_gradient_checkpointing(self, kind: GradientCheckpointing) -> None:
        """Choose what the embedding, the layers and the decoders compute again in the backward pass."""
        self.gradient_checkpointing = kind
        for layer in self.layers:
            layer.gradient_checkpointing = layer.classes.gradient_checkpointing = kind

    def best_classes(self, cost: torch.Tensor) -> torch.Tensor | None:
        """(B, P, T, h, w) -> (B, S), ascending: the classes of the largest cosine over prompts and positions.

        None where there are at most S.
        """
        if not 0 < self.class_limit < cost.shape[2]:
            return None
        best = cost.detach().amax(dim=(1, 3, 4))  # (B, T)
        return best.topk(self.class_limit, dim=1).indices.sort(dim=1).values

    def _logits(
        self, dense: torch.Tensor, guidance: Sequence[torch.Tensor], cost: torch.Tensor, text_guidance: torch.Tensor
    ) -> torch.Tensor:
        """(B, P, S, h, w) costs and (B, S, G) text guidance -> (B, S, F h, F w)."""
        pooling = self.training_pooling if self.training else self.test_pooling
        chunk = self.maps_at_once(cost.device)
        at_once = max(1, chunk // len(cost))  # classes
        appearance = self.appearance_projection(dense).permute(0, 2, 3, 1)  # (B, h, w, G)
        again = self.gradient_checkpointing
        x = in_chunks(self._embed, cost.transpose(1, 2), 1, at_once, again)  # (B, S, h, w, C)
        for layer in self.layers:
            x = layer(x, appearance, text_guidance, pooling=pooling, chunk=chunk)
        projected = [project(one) for project, one in zip(self.guidance_projections, guidance, strict=True)]
        pairs = zip(self.decoders, projected, strict=True)
        convolved = [decoder.convolve_guidance(one) for decoder, one in pairs]
        # A decoded map has F^2 times the positions, and a share of the channels.
        return in_chunks(lambda maps: self._decode(maps, convolved), x, 1, max(1, at_once // 2), again)

    def _embed(self, cost: torch.Tensor) -> torch.Tensor:
        """(B, S, P, h, w) -> (B, S, h, w, C)."""
        return self.embedding(cost.flatten(0, 1)).permute(0, 2, 3, 1).unflatten(0, cost.shape[:2])

    def _decode(self, x: torch.Tensor, convolved: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, S, h, w, C) -> (B, S, F h, F w)."""
        maps = x.permute(0, 1, 4, 2, 3)
        for decoder, one in zip(self.decoders, convolved, strict=True):
            maps = decoder(maps, one)
        return self.head(maps.flatten(0, 1)).squeeze(1).unflatten(0, maps.shape[:2])


def cost_volume(dense: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """Cosines of (B, E, h, w) image features and (T, P, E) text embeddings: (B, P, T, h, w)."""
    return torch.einsum("behw,tpe->bpthw", F.normalize(dense, dim=1), F.normalize(text, dim=-1))
