"""DenseRC's features compared with those of CLIPSelf's and DeCLIP's own code for the same weights and inputs.

A comparison has the name of the recorded array, of a file in tests/fixtures/encoders, and its stated tolerance. "s" is
the training size, "l" twice that, "rect" not square. Test modules build a fresh model, `Ours`, so that a planted
mistake reaches every comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from open_clip.model import CLIPTextCfg, _build_text_tower
from torch import nn
from torch.nn import functional as F

from denserc.construction import Construction, DenseEncoder
from denserc.encoders import load_exactly, to_open_clip_keys
from denserc.evaluation.regions.pooling import pool_boxes, pool_masks
from tests.conftest import Recorded, make_recorded_tower


class Ours:
    """The recorded model, built and run by DenseRC.

    Args:
        recorded: Recorded inputs and weights.
        dtype: Type of all arithmetic.
        plant: Function that changes the towers after they are built; None for no change.
    """

    def __init__(
        self,
        recorded: Recorded,
        dtype: torch.dtype = torch.float32,
        plant: Callable[["Ours"], None] = lambda model: None,
    ):
        weights = recorded.weights()
        self.recorded, self.dtype = recorded, dtype
        self.tower = make_recorded_tower(weights).to(dtype)
        text = _build_text_tower(48, CLIPTextCfg(context_length=12, vocab_size=64, width=48, heads=3, layers=2))
        state = {k.removeprefix("text."): v for k, v in to_open_clip_keys(weights).items() if k.startswith("text.")}
        load_exactly(text, state, "the recorded weights")
        self.text_tower = text.eval().to(dtype)
        self.logit_scale = weights["logit_scale"].exp().to(dtype)
        self.construction = {"clipself": Construction.named("clipself"), "declip": Construction.named("declip")}
        plant(self)
        self.stream = lru_cache(self.stream)
        self.dense = lru_cache(self.dense)

    def images(self, size: str) -> torch.Tensor:
        return self.recorded("inputs", f"images_{size}").to(self.dtype)

    def image(self, size: str) -> torch.Tensor:
        return self.tower.encode_image(self.images(size))

    def text(self) -> torch.Tensor:
        return self.text_tower(self.recorded("inputs", "text"))

    def logits(self) -> torch.Tensor:
        return self.logit_scale * unit(self.image("s")) @ unit(self.text()).T

    def stream(self, size: str, blocks: int):
        """The residual stream after this number of blocks."""
        stream = self.tower.embed(self.images(size))
        for index in range(blocks):
            stream = self.tower.block(index, stream)[0]
        return stream

    def tokens_normed(self, size: str) -> torch.Tensor:
        return self.tower.visual.trunk.norm(self.stream(size, self.tower.depth).tokens)

    def vanilla(self, size: str) -> torch.Tensor:
        stream = self.stream(size, self.tower.depth)
        return stream.to_map(self.tower.to_text_space(stream.patches))

    def dense(self, name: str, size: str) -> torch.Tensor:
        return DenseEncoder(self.tower, self.construction[name]).eval()(self.images(size))

    def pooled_map(self, name: str, size: str) -> torch.Tensor:
        """CLIPSelf pools unit vectors, DeCLIP the raw map."""
        dense = self.dense(name, size)
        return normalized_map(dense) if name == "clipself" else dense

    def boxes(self, name: str, size: str, kind: str = "boxes") -> torch.Tensor:
        count = 1 if size == "rect" else 2
        boxes = [self.recorded("inputs", f"{kind}{i}") for i in range(count)]  # in 0..1
        return pool_boxes(self.pooled_map(name, size), boxes, side=1)

    def masks(self, name: str, size: str) -> torch.Tensor:
        names = ["masks_rect"] if size == "rect" else [f"masks_{size}{i}" for i in (0, 1)]
        return pool_masks(self.pooled_map(name, size), [self.recorded("inputs", n) for n in names])


def unit(x: torch.Tensor) -> torch.Tensor:
    return F.normalize(x, dim=-1)


def normalized_map(dense: torch.Tensor) -> torch.Tensor:
    """(B, E, h, w) of unit vectors."""
    return F.normalize(dense, dim=1)


@dataclass(frozen=True)
class Comparison:
    """One recorded array.

    Args:
        file: Name of a file in tests/fixtures/encoders.
        atol: Absolute tolerance, as stated with the recording.
        compute: Function that computes DenseRC's counterpart.
        array: Name of the array in the file; None for the name of the comparison.
    """

    file: str
    atol: float
    compute: Callable[[Ours], torch.Tensor]
    array: str = ""


@torch.no_grad()
def difference(ours: Ours, name: str) -> float:
    """The largest difference from the recorded array, in units of its tolerance."""
    comparison = COMPARISONS[name]
    expected = ours.recorded(comparison.file, comparison.array or name)
    given = comparison.compute(ours)
    assert given.shape == expected.shape and given.dtype == expected.dtype, (given.shape, given.dtype)
    return (given - expected).abs().max().item() / comparison.atol


COMPARISONS = {
    "encode_text": Comparison("clipself", 5e-6, Ours.text),
    "encode_text_norm": Comparison("clipself", 3e-6, lambda m: unit(m.text())),
    "logits_s": Comparison("clipself_more", 2e-5, Ours.logits),
    "rect_encode_image": Comparison("rect", 4e-5, lambda m: m.image("rect")),
    "rect_encode_dense": Comparison("rect", 1e-5, lambda m: normalized_map(m.dense("clipself", "rect"))),
    "rect_pseudo_boxes_v2": Comparison("rect_more", 3e-6, lambda m: m.boxes("clipself", "rect")),
    "rect_encode_masks": Comparison("rect_more", 4e-6, lambda m: unit(m.masks("clipself", "rect"))),
    "rois_and_image_rois_l": Comparison("clipself_more", 3e-6, lambda m: unit(m.boxes("clipself", "l"))),
    "rois_and_image_image_l": Comparison("clipself_more", 3e-6, lambda m: unit(m.image("l"))),
}
_CLIPSELF = {  # file, tolerance at s and at l
    "encode_image": ("clipself", 4e-5, 3e-5, lambda m, z: m.image(z)),
    "encode_image_norm": ("clipself_more", 4e-6, 3e-6, lambda m, z: unit(m.image(z))),
    "encode_dense": ("clipself", 8e-6, 1e-5, lambda m, z: normalized_map(m.dense("clipself", z))),
    "tokens_normed": ("clipself_more", 6e-5, 6e-5, lambda m, z: m.tokens_normed(z)),
    "pseudo_boxes_v2": ("clipself", 5e-6, 3e-6, lambda m, z: m.boxes("clipself", z)),
    "pseudo_boxes_v2_norm": ("clipself", 5e-6, 3e-6, lambda m, z: unit(m.boxes("clipself", z))),
    "pseudo_boxes_grid": ("clipself_more", 5e-6, 3e-6, lambda m, z: m.boxes("clipself", z, "grid_boxes")),
    "encode_masks": ("clipself", 3e-6, 3e-6, lambda m, z: unit(m.masks("clipself", z))),
    "mask_pool_raw": ("clipself_more", 3e-6, 3e-6, lambda m, z: m.masks("clipself", z)),
}
_DECLIP = {
    "dense_qq": ("declip", 1e-4, 2e-4, lambda m, z: m.dense("declip", z)),
    "dense_qq_norm": ("declip_more", 2e-5, 3e-5, lambda m, z: normalized_map(m.dense("declip", z))),
    "pseudo_boxes_qq": ("declip_more", 4e-5, 4e-5, lambda m, z: m.boxes("declip", z)),
    "pseudo_boxes_qq_norm": ("declip_more", 6e-6, 7e-6, lambda m, z: unit(m.boxes("declip", z))),
    "encode_masks_qq": ("declip_more", 5e-6, 6e-6, lambda m, z: unit(m.masks("declip", z))),
    "dense_maskclip": ("declip", 6e-5, 8e-5, lambda m, z: m.dense("clipself", z)),
    "dense_vanilla": ("declip", 6e-5, 6e-5, lambda m, z: m.vanilla(z)),
}
for _name, (_file, _small, _large, _compute) in (_CLIPSELF | _DECLIP).items():
    for _size, _atol in (("s", _small), ("l", _large)):
        _at = "declip_more" if _name in ("dense_maskclip", "dense_vanilla") and _size == "l" else _file
        COMPARISONS[f"{_name}_{_size}"] = Comparison(_at, _atol, lambda m, c=_compute, z=_size: c(m, z))
FLOAT32 = tuple(COMPARISONS)

# In float64, with rotary tables made in float32 on both sides; the README asks for 1e-6 and allows 1e-9 so.
_FLOAT64 = {
    "float64": ("encode_image_s", "encode_dense_s", "pseudo_boxes_v2_s", "mask_pool_raw_s", "tokens_normed_s")
    + ("encode_dense_l", "pseudo_boxes_v2_l", "encode_text", "rect_encode_image", "rect_encode_dense"),
    "declip_float64": ("dense_qq_s", "dense_qq_l", "pseudo_boxes_qq_s", "encode_masks_qq_s"),
}
for _file, _names in _FLOAT64.items():
    for _name in _names:
        COMPARISONS[f"{_name} in float64"] = Comparison(_file, 1e-9, COMPARISONS[_name].compute, _name)
FLOAT64 = tuple(name for name in COMPARISONS if name not in FLOAT32)


def zero_biases(tower: nn.Module, part: str) -> None:
    """Drops the query or value bias of every block."""
    with torch.no_grad():
        for block in tower.visual.trunk.blocks:
            getattr(block.attn, f"{part}_proj").bias.zero_()
