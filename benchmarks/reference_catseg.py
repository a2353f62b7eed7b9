"""CAT-Seg's own way, restated plainly over the parts and weights of a CATSeg.

docs/SPEED.md lists it point by point. Shape letters: B views, T classes, S classes of the layers, P prompts, M padding
tokens, (h, w) feature grid, C channels, G channels of a guidance, L positions of a window, A heads.
"""

import torch
from torch import nn
from torch.nn import functional as F

from denserc.data.vocabulary.prompts import build_prompts
from denserc.data.vocabulary.text_embeddings import average_templates
from denserc.openvocab.vocabulary import Synonyms
from denserc.segmentation.modeling.aggregation import DROPPED
from denserc.segmentation.modeling.classes import EPS, ClassAggregation, ClassAttention
from denserc.segmentation.modeling.decoder import UpsamplingDecoder
from denserc.segmentation.modeling.meta_arch import CATSeg
from denserc.segmentation.modeling.options import Background, ClassAttentionKind, DenseFeatures, IgnoredPixels
from denserc.segmentation.modeling.spatial import SpatialAggregation, SwinBlock, WindowLayout
from denserc.segmentation.modeling.windows import SlidingWindows, resize
from denserc.structures import ConfigurationError


class ReferenceCATSeg(nn.Module):
    """Labels and losses of a CATSeg, computed as in CAT-Seg's code; shares its modules and replaces it in a trainer.

    The image tower is the model's own, so it costs both the same.

    Args:
        model: Evaluated with sliding windows, trained with ignored pixels as negatives.

    Raises:
        ConfigurationError: An option that CAT-Seg does not have.
    """

    def __init__(self, model: CATSeg):
        super().__init__()
        kinds = {layer.classes.attention.kind for layer in model.aggregator.layers}
        if (
            not isinstance(model.views, SlidingWindows)
            or model.ignored is not IgnoredPixels.NEGATIVE
            or model.background is not Background.NONE
            or model.synonyms is Synonyms.MEAN
            or kinds != {ClassAttentionKind.LINEAR}
        ):
            raise ConfigurationError(
                "The reference restates sliding windows, ignored pixels as negatives, linear attention, first synonyms "
                "and no background; configure the model so."
            )
        self.model = model

    def forward(self, batched_inputs: list[dict]) -> dict[str, torch.Tensor] | list[dict]:
        """As `CATSeg.forward` with OUTPUT "labels"."""
        model = self.model
        dtype = model.pixel_mean.dtype
        images = [(one["image"].to(model.device, dtype) - model.pixel_mean) / model.pixel_std for one in batched_inputs]
        if not model.training:
            with torch.no_grad():
                pairs = zip(images, batched_inputs, strict=True)
                return [self.best(self.scores(image, one)) for image, one in pairs]
        logits = self.logits(torch.cat([resize(image[None], model.input_size) for image in images]), self.text())
        targets = torch.stack([one["sem_seg"].to(model.device).long() for one in batched_inputs])  # (B, H, W)
        logits = resize(logits, tuple(targets.shape[1:])).permute(0, 2, 3, 1)  # (B, H, W, T)
        known = (targets >= 0) & (targets < logits.shape[-1])
        wanted = torch.zeros_like(logits)
        wanted[known] = F.one_hot(targets[known], logits.shape[-1]).to(wanted)
        return {"loss_sem_seg": F.binary_cross_entropy_with_logits(logits, wanted)}

    @staticmethod
    def best(scores: torch.Tensor) -> dict[str, torch.Tensor]:
        """(T, h, w) -> labels and their probabilities, (h, w)."""
        labels = scores.argmax(dim=0)
        return {"sem_seg": labels, "scores": scores.gather(0, labels[None])[0]}

    def text(self) -> torch.Tensor:
        """(T, E) unit vectors: the text tower over all positions of each prompt, padding included."""
        model = self.model
        names, templates = model.vocabulary.names, model.templates
        phrases = [phrase for name in names for phrase in model.synonyms.phrases(name)[:1]]
        tower = model.text_tower
        tokens = tower._tokenizer([prompt for phrase in phrases for prompt in build_prompts(phrase, templates)])
        vectors = F.normalize(tower.text(tokens.to(model.device)), dim=-1)
        model.embed_again()  # a step of training follows
        return average_templates(vectors, len(templates))

    def scores(self, image: torch.Tensor, one: dict) -> torch.Tensor:
        """(T, height, width) probabilities of a normalized picture: all classes of all views at once."""
        model, views = self.model, self.model.views
        size = one.get("height", image.shape[-2]), one.get("width", image.shape[-1])
        canvas = views.canvas or tuple(image.shape[-2:])
        (a, b), places = views.places(canvas)
        batch = torch.cat([resize(view[None], model.input_size) for view in views.cut(image)])
        logits = resize(self.logits(batch, model.classes.require()), (a, b))  # (V, T, a, b)
        scores = logits.sigmoid()
        whole = resize(scores[-1:], canvas)
        windows = scores[:-1].flatten(1).T  # (T a b, windows)
        options = {"output_size": canvas, "kernel_size": (a, b), "stride": views.stride}
        ones = torch.ones(a * b, len(places), dtype=scores.dtype, device=scores.device)
        merged = (F.fold(windows, **options) / F.fold(ones, **options) + whole[0]) / 2
        return resize(merged[None], size)[0]

    def logits(self, images: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) network inputs and (T, E) text -> (B, T, F h, F w)."""
        model, aggregator = self.model, self.model.aggregator
        dense, maps = model.encoder.forward_with_maps(images, model.blocks)
        if model.dense_features is DenseFeatures.UNIT:
            dense = F.normalize(dense, dim=1)
        guidance = [up(one) for up, one in zip(model.guidance_upsamplers, maps, strict=True)]
        text = text[None, :, None].repeat(len(images), 1, 1, 1)  # (B, T, P, E)
        cost = costs(dense, text)
        total, kept = cost.shape[2], None
        if 0 < aggregator.class_limit < total:
            best = cost.detach().amax(dim=(1, 3, 4)).topk(aggregator.class_limit, dim=1, sorted=False)
            kept = best.indices.sort(dim=1).values  # (B, S)
            text = text.gather(1, kept[:, :, None, None].expand(-1, -1, *text.shape[2:]))
            cost = costs(dense, text)
        b, s = kept.shape if kept is not None else text.shape[:2]
        x = aggregator.embedding(cost.transpose(1, 2).flatten(0, 1))  # (B S, C, h, w)
        x = x.unflatten(0, (b, s)).transpose(1, 2)  # (B, C, S, h, w)
        appearance = aggregator.appearance_projection(dense)  # (B, G, h, w)
        names = aggregator.text_projection(F.normalize(text.mean(dim=2), dim=-1))  # (B, S, G)
        pooling = aggregator.training_pooling if aggregator.training else aggregator.test_pooling
        for layer in aggregator.layers:
            x = aggregate_space(layer.spatial, x, appearance)
            x = aggregate_classes(layer.classes, x, names, pooling)
        x = x.transpose(1, 2).flatten(0, 1)  # (B S, C, h, w)
        for decoder, project, one in zip(aggregator.decoders, aggregator.guidance_projections, guidance, strict=True):
            x = decode(decoder, x, project(one).repeat_interleave(s, dim=0))
        found = aggregator.head(x).unflatten(0, (b, s)).squeeze(2)
        if kept is None:
            return found
        whole = torch.full((b, total, *found.shape[2:]), DROPPED, dtype=found.dtype, device=found.device)
        return whole.scatter(1, kept[:, :, None, None].expand_as(found), found)


def costs(dense: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
    """(B, E, h, w) and (B, T, P, E) -> (B, P, T, h, w) cosines."""
    return torch.einsum("behw,btpe->bpthw", F.normalize(dense, dim=1), F.normalize(text, dim=-1))


def aggregate_space(part: SpatialAggregation, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """(B, C, T, h, w) and (B, G, h, w) -> (B, C, T, h, w); the guidance is normalized once per class."""
    b, _, t, h, w = x.shape
    x = x.permute(0, 2, 3, 4, 1).flatten(0, 1)  # (B T, h, w, C)
    guidance = part.guidance_norm(guidance.permute(0, 2, 3, 1).repeat_interleave(t, dim=0))  # (B T, h, w, G)
    for block in part.blocks:
        x = swin_block(block, x, guidance)
    return x.unflatten(0, (b, t)).permute(0, 4, 1, 2, 3).contiguous()


def swin_block(block: SwinBlock, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """(B T, h, w, C) and (B T, h, w, G) -> (B T, h, w, C), with the attention's matrices in memory."""
    attention = block.attn
    layout = WindowLayout(x.shape[1:3], attention.window, attention.shifted)
    joined = layout.cut(torch.cat([block.norm1(x), guidance], dim=-1), 1).squeeze(2)  # (K, B T, L, C + G)
    q, k, v = attention.q(joined), attention.k(joined), attention.v(joined[..., : x.shape[-1]])
    q, k, v = (one.unflatten(-1, (attention.num_heads, -1)).transpose(2, 3) for one in (q, k, v))  # (K, B T, A, L, d)
    weights = q * q.shape[-1] ** -0.5 @ k.mT  # (K, B T, A, L, L)
    mask = layout.mask(x.device)
    if mask is not None:
        weights = weights + mask[:, None, None].to(weights.dtype)
    mixed = (weights.softmax(dim=-1) @ v).transpose(2, 3).flatten(3)  # (K, B T, L, C)
    x = x + layout.join(attention.proj(mixed).unsqueeze(2))
    return x + block.mlp(block.norm2(x))


def aggregate_classes(
    part: ClassAggregation, x: torch.Tensor, guidance: torch.Tensor, pooling: tuple[int, int]
) -> torch.Tensor:
    """(B, C, T, h, w) and (B, T, G) -> (B, C, T, h, w); every padding token is a class like others."""
    b, c, t, h, w = x.shape
    pooled = F.avg_pool2d(x.transpose(1, 2).flatten(0, 1), pooling)  # (B T, C, p, q)
    p, q = pooled.shape[-2:]
    pooled = pooled.unflatten(0, (b, t))
    missing = part.padded_length - t
    if missing > 0:
        tokens = part.padding_token[:, None, None].expand(b, missing, c, p, q)
        pooled = torch.cat([pooled, tokens], dim=1)
        guidance = torch.cat([guidance, part.padding_guidance.expand(b, missing, -1)], dim=1)
    sequences = pooled.permute(0, 3, 4, 1, 2).flatten(0, 2)  # (B p q, T + M, C)
    guidance = guidance.repeat_interleave(p * q, dim=0)  # (B p q, T + M, G)
    sequences = sequences + linear_attention(part.attention, part.norm1(sequences), guidance)
    sequences = sequences + part.mlp(part.norm2(sequences))
    maps = sequences.unflatten(0, (b, p, q)).permute(0, 3, 4, 1, 2).flatten(0, 1)  # (B (T + M), C, p, q)
    maps = F.interpolate(maps, size=(h, w), mode="bilinear", align_corners=True)
    return x + maps.unflatten(0, (b, -1))[:, :t].transpose(1, 2)


def linear_attention(part: ClassAttention, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """(N, T, C) and (N, T, G) -> (N, T, C)."""
    joined = torch.cat([x, guidance], dim=-1)
    q, k, v = (one.unflatten(-1, (part.num_heads, -1)) for one in (part.q(joined), part.k(joined), part.v(x)))
    q, k = F.elu(q) + 1, F.elu(k) + 1
    count = v.shape[1]
    sums = torch.einsum("nthd,nthv->nhdv", k, v / count)
    divisor = 1 / (torch.einsum("nthd,nhd->nth", q, k.sum(dim=1)) + EPS)
    return (torch.einsum("nthd,nhdv,nth->nthv", q, sums, divisor) * count).flatten(2)


def decode(decoder: UpsamplingDecoder, x: torch.Tensor, guidance: torch.Tensor) -> torch.Tensor:
    """(B T, C, h, w) and (B T, G, 2h, 2w) -> (B T, O, 2h, 2w)."""
    return decoder.convs(torch.cat([decoder.up(x), guidance], dim=1))
