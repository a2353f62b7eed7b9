"""Tests of the parity tests: each planted mistake exceeds the recorded tolerances.

The list and the outputs that each mistake must be seen in are those of the recordings' README ("DETECTABILITY"), and
DeCLIP's. Every mistake is planted in DenseRC's own code, and the comparisons of `parity` are made again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn

from denserc.construction import Construction, ValueModule, ValueSource, dense
from denserc.encoders import PositionResize, key_formats
from denserc.encoders.towers import eva
from denserc.structures import boxes as region_pooling
from tests.construction import parity
from tests.construction.parity import Ours, difference

CLIPSELF = ("encode_image_s", "encode_dense_s", "encode_dense_l", "pseudo_boxes_v2_norm_s", "encode_masks_s")
DECLIP = ("dense_qq_s", "dense_qq_l", "pseudo_boxes_qq_s", "encode_masks_qq_s")
Plant = Callable[[pytest.MonkeyPatch, Ours], None]


def _epsilon(part: str, eps: float) -> Plant:
    def plant(patch, model):
        for module in getattr(model, part).modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    return plant


def _rotary(change: Callable[..., torch.Tensor]) -> Plant:
    return lambda patch, model: patch.setattr(eva, "rotary_table", partial(change, eva.rotary_table))


def _swapped_mlp(patch, model):
    names = {".mlp.fc1_g.": ".mlp.fc1_x.", ".mlp.fc1_x.": ".mlp.fc1_g."}
    rules = tuple((pattern, names.get(new, new)) for pattern, new in key_formats._EVA_RENAMES)
    patch.setattr(key_formats, "_EVA_RENAMES", rules)
    model.tower = parity.make_recorded_tower(model.recorded.weights())


def _no_last_inner_norm(patch, model):
    right = eva.EvaTower.inner_norm
    last = model.tower.depth - 1
    patch.setattr(eva.EvaTower, "inner_norm", lambda self, i, x: x if i == last else right(self, i, x))


def _roi(**changes) -> Plant:
    right = region_pooling.roi_align
    return lambda patch, model: patch.setattr(
        region_pooling, "roi_align", lambda *args, **kwargs: right(*args, **{**kwargs, **changes})
    )


def _scaled_qq(patch, model):
    right = dense.attention
    patch.setattr(dense, "attention", lambda q, k, v, scale=None: right(q, k, v))


def _rotary_qq(patch, model):
    right = eva.EvaTower.queries_keys

    def always_rotary(self, index, normed, stream, rotary, **some):
        return right(self, index, normed, stream, True, **some)

    patch.setattr(eva.EvaTower, "queries_keys", always_rotary)


def _declip_as(**changes) -> Plant:
    def plant(patch, model):
        model.construction["declip"] = Construction.named("declip", **changes)

    return plant


@dataclass(frozen=True)
class Mistake:
    """Args: plant: makes it; seen_in: the comparisons that must leave their tolerance."""

    plant: Plant
    seen_in: tuple[str, ...]


MISTAKES = {
    "vision LN eps 1e-5": Mistake(_epsilon("tower", 1e-5), CLIPSELF),
    "text LN eps 1e-6": Mistake(_epsilon("text_tower", 1e-6), ("encode_text", "encode_text_norm")),
    # The files hold only the training grid's table: "l" does not use it.
    "float16 rotary buffers trusted": Mistake(
        _rotary(lambda right, *args, **kind: right(*args, **kind).half().float()),
        tuple(n for n in CLIPSELF if not n.endswith("_l")),
    ),
    "rotary positions not rescaled": Mistake(
        _rotary(lambda right, grid, head_dim, reference, *rest, **kind: right(grid, head_dim, None, *rest, **kind)),
        CLIPSELF,
    ),
    "no rotary embedding": Mistake(
        lambda patch, model: patch.setattr(eva, "apply_rot_embed_cat", lambda x, table: x), CLIPSELF
    ),
    "antialiased position embeddings": Mistake(
        lambda patch, model: setattr(model.tower, "position_resize", PositionResize.BICUBIC_ANTIALIAS),
        ("encode_dense_l", "encode_image_l", "dense_qq_l", "rect_encode_dense"),
    ),
    "q_bias dropped": Mistake(lambda patch, model: parity.zero_biases(model.tower, "q"), CLIPSELF + DECLIP),
    "v_bias dropped": Mistake(lambda patch, model: parity.zero_biases(model.tower, "v"), CLIPSELF + DECLIP),
    "w1 and w2 swapped": Mistake(_swapped_mlp, CLIPSELF + DECLIP),
    "last block's inner LN skipped": Mistake(_no_last_inner_norm, CLIPSELF + DECLIP),
    "RoIAlign not aligned": Mistake(_roi(aligned=False), ("pseudo_boxes_v2_norm_s", "pseudo_boxes_qq_s")),
    "RoIAlign with two samples": Mistake(_roi(sampling_ratio=2), ("pseudo_boxes_v2_norm_s", "pseudo_boxes_qq_s")),
    "no L2 norm before pooling": Mistake(
        lambda patch, model: patch.setattr(parity, "normalized_map", lambda x: x),
        ("pseudo_boxes_v2_norm_s", "encode_masks_s"),
    ),
    "DeCLIP's q-q attention scaled by 1/sqrt(d)": Mistake(_scaled_qq, DECLIP),
    "DeCLIP's q-q attention with rotary embedding": Mistake(_rotary_qq, DECLIP),
    "DeCLIP's residual kept": Mistake(_declip_as(values=ValueSource.LAST_BLOCK_RESIDUAL), DECLIP),
    "DeCLIP's MLP kept": Mistake(_declip_as(final_mlp=True), DECLIP),
    "DeCLIP's attention left out": Mistake(_declip_as(module=ValueModule.NONE), DECLIP),
    "DeCLIP's q-q attention made q-k": Mistake(_declip_as(module=ValueModule.QK_ATTENTION), DECLIP),
}
SEEN_IN = sorted({name for mistake in MISTAKES.values() for name in mistake.seen_in})


def test_without_a_mistake_all_of_them_agree(recorded):
    ours = Ours(recorded)
    assert {name: difference(ours, name) for name in SEEN_IN if difference(ours, name) >= 1} == {}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_exceeds_the_tolerance_listed_in_the_readme(recorded, monkeypatch, name):
    mistake = MISTAKES[name]
    ours = Ours(recorded, plant=partial(mistake.plant, monkeypatch))
    assert [array for array in mistake.seen_in if difference(ours, array) < 1] == []
