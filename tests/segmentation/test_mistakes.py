"""Mistakes planted in this project's code: the comparison with the recordings must notice each of them."""

from dataclasses import replace

import pytest
import torch
from open_clip.transformer import QuickGELU
from torch import nn
from torch.nn import functional as F

from denserc.construction import ValueSource
from denserc.encoders import PositionResize
from denserc.segmentation.modeling import classes, windows
from denserc.segmentation.modeling.aggregation import Aggregator, AggregatorLayer
from denserc.segmentation.modeling.classes import ClassAggregation, ClassAttention
from denserc.segmentation.modeling.options import ClassAttentionKind
from denserc.segmentation.modeling.spatial import WindowLayout
from denserc.segmentation.modeling.windows import SlidingWindows, resize
from tests.segmentation.recorded import evaluation_pass, training_pass

STAGES = ("visual_dense", "cost_volume", "layer0_spatial", "layer0_class", "logits", "text_in")


def worst_in_training(make, recordings, change=None) -> float:
    """Largest difference of a recorded stage of the training pass, in tolerances."""
    model = make()
    if change is not None:
        change(model)
    with torch.no_grad():
        loss, stages = training_pass(model, recordings)
    shapes = {name: recordings.manifest["train.npz"][name]["shape"] for name in STAGES}
    found = [recordings.difference("train", name, stages.shaped(name, shapes[name])) for name in STAGES]
    return max(*found, recordings.difference("train", "loss", loss))


def worst_in_evaluation(make, recordings, file) -> float:
    """Difference of the final scores of an evaluation, in tolerances."""
    _, scores, _ = evaluation_pass(make, recordings, file)
    return recordings.difference(file, "sem_seg", scores)


def set_norms(modules, kind, eps):
    for module in modules:
        if isinstance(module, kind):
            module.eps = eps


def construction(**choices):
    def change(model):
        model.encoder.construction = replace(model.encoder.construction, **choices)

    return change


def constant(module, value):
    module.register_forward_hook(lambda _, __, output: torch.full_like(output, value))


def early_taps(model):
    model.blocks = tuple(block - 1 for block in model.blocks)


def plain_gelu(model):
    for tower in (model.encoder, model.text_tower):
        for module in list(tower.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, QuickGELU):
                    setattr(module, name, nn.GELU())


def identity(module):
    module.register_forward_hook(lambda _, given, __: given[0])


def with_layers(do):
    def change(model):
        for layer in model.aggregator.layers:
            do(layer)

    return change


def set_on(path, name, value):
    return with_layers(lambda layer: setattr(layer.get_submodule(path), name, value))


def zero_padding_guidance(layer):
    nn.init.zeros_(layer.classes.padding_guidance)


def swapped_rgb(model):
    model.register_forward_pre_hook(lambda _, given: ([{**one, "image": one["image"].flip(0)} for one in given[0]],))


TRAINING = {
    "aggregator LayerNorm eps 1e-6": lambda m: set_norms(m.aggregator.modules(), nn.LayerNorm, 1e-6),
    "CLIP LayerNorm eps 1e-6": lambda m: set_norms(m.text_tower.modules(), nn.LayerNorm, 1e-6),
    "appearance guidance zero": lambda m: constant(m.aggregator.appearance_projection, 0.0),
    "guidance not normalized": with_layers(lambda layer: identity(layer.spatial.guidance_norm)),
    "second Swin block not shifted": set_on("spatial.blocks.1.attn", "shifted", False),
    "first Swin block shifted": set_on("spatial.blocks.0.attn", "shifted", True),
    "GELU in the class MLP": with_layers(lambda layer: layer.classes.mlp.__setitem__(1, nn.GELU())),
    "padding guidance zero": with_layers(zero_padding_guidance),
    "padding off": set_on("classes", "padded_length", 0),
    "one padding token too few": lambda m: set_on("classes", "padded_length", m.aggregator.class_limit - 1)(m),
    "softmax instead of linear attention": set_on("classes.attention", "kind", ClassAttentionKind.FULL),
    "each token's own residual": construction(values=ValueSource.LAST_BLOCK_RESIDUAL),
    "no residual": construction(values=ValueSource.LAST_BLOCK),
    "no MLP": construction(final_mlp=False),
    "GELU instead of QuickGELU": plain_gelu,
    "position embedding with antialias": lambda m: setattr(
        m.encoder.tower, "position_resize", PositionResize.BICUBIC_ANTIALIAS
    ),
    "BGR": swapped_rgb,
    "guidance taps one block early": early_taps,
    "first decoder guidance zero": lambda m: constant(m.aggregator.guidance_projections[0], 0.0),
}


def test_without_a_mistake_nothing_is_noticed(make_recorded, recordings):
    assert worst_in_training(make_recorded, recordings) <= 1


@pytest.mark.parametrize("mistake", TRAINING)
def test_mistakes_in_the_model(make_recorded, recordings, mistake):
    if "position" in mistake and recordings.config["clip"]["native_size"] == recordings.config["clip_resolution"][0]:
        pytest.skip("the recorded model runs at its native size")
    assert worst_in_training(make_recorded, recordings, TRAINING[mistake]) > 1


OPTIONS = {
    "ImageNet pixel statistics": (
        "MODEL.PIXEL_MEAN", [123.675, 116.28, 103.53], "MODEL.PIXEL_STD", [58.395, 57.12, 57.375],
    ),
    "another template": ("MODEL.VOCABULARY.TEMPLATES", "plain"),
    "ignored pixels left out": ("MODEL.CATSEG.IGNORED", "excluded"),
    "unit dense features": ("MODEL.CATSEG.DENSE_FEATURES", "unit"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", OPTIONS)
def test_wrong_options(make_recorded, recordings, mistake):
    assert worst_in_training(lambda: make_recorded(*OPTIONS[mistake]), recordings) > 1


def class_before_spatial(self, x, appearance, text_guidance, *, pooling, chunk):
    return self.spatial(self.classes(x, text_guidance, pooling=pooling, chunk=chunk), appearance)


def once(forward):
    return lambda self, x, *given, **options: forward(self, x, *given, **options) - x


def unaligned(*given, align_corners, **options):
    return F.interpolate(*given, align_corners=False, **options)


class _Functional:
    """torch.nn.functional with another interpolate."""

    interpolate = staticmethod(unaligned)

    def __getattr__(self, name):
        return getattr(F, name)


def mixed_heads(forward):
    def wrong(self, *given):
        mixed = forward(self, *given)
        return mixed.unflatten(-1, (self.num_heads, -1)).transpose(-1, -2).flatten(-2)

    return wrong


def join_without_roll(join):
    def wrong(self, windows):
        shift, self.shift = self.shift, (0, 0)
        try:
            return join(self, windows)
        finally:
            self.shift = shift

    return wrong


PATCHES = {
    "class before spatial": (AggregatorLayer, "forward", class_before_spatial),
    "shift without the mask": (WindowLayout, "mask", lambda self, device: None),
    "shift not undone": (WindowLayout, "join", join_without_roll(WindowLayout.join)),
    "x counted once": (ClassAggregation, "forward", once(ClassAggregation.forward)),
    "class layer with align_corners false": (classes, "F", _Functional()),
    "heads and channels exchanged": (ClassAttention, "forward", mixed_heads(ClassAttention.forward)),
}


@pytest.mark.parametrize("mistake", PATCHES)
def test_mistakes_in_the_code(make_recorded, recordings, monkeypatch, mistake):
    monkeypatch.setattr(*PATCHES[mistake])
    assert worst_in_training(make_recorded, recordings) > 1


def merge_without_global(self, logits, image_size, size):
    return SlidingWindows_merge(self, torch.cat([logits[:-1], torch.full_like(logits[-1:], 100.0)]), image_size, size)


SlidingWindows_merge = SlidingWindows.merge


def logits_averaged(self, logits, image_size, size):
    canvas = self.canvas
    (a, b), places = self.places(canvas)
    maps = resize(logits, (a, b))
    total, count = maps.new_zeros(maps.shape[1], *canvas), maps.new_zeros(canvas)
    for one, (row, column) in zip(maps, places, strict=False):
        total[:, row : row + a, column : column + b] += one
        count[row : row + a, column : column + b] += 1
    return resize(((total / count + resize(maps[-1:], canvas)[0]) / 2)[None], size)[0].sigmoid()


def global_from_canvas(self, image):
    squashed = resize(image[None], self.canvas)[0]
    (a, b), places = self.places(self.canvas)
    return [*(squashed[:, r : r + a, c : c + b] for r, c in places), resize(squashed[None], (a, b))[0]]


def mean_ranked(self, cost):
    return cost.mean(dim=(1, 3, 4)).topk(self.class_limit, dim=1).indices.sort(dim=1).values


def first_ones_kept(self, cost):
    if self.class_limit >= cost.shape[2]:
        return None
    return torch.arange(self.class_limit).expand(len(cost), -1)


WINDOWS = {
    "no global picture": ("eval_slide_many", SlidingWindows, "merge", merge_without_global),
    "logits averaged, sigmoid last": ("eval_slide_many", SlidingWindows, "merge", logits_averaged),
    "global picture from the canvas": ("eval_slide_many", SlidingWindows, "cut", global_from_canvas),
    "classes ranked by mean cosine": ("eval_slide_many", Aggregator, "best_classes", mean_ranked),
    "the first classes kept": ("eval_slide_many", Aggregator, "best_classes", first_ones_kept),
    "no limit on the classes": ("eval_slide_many", Aggregator, "best_classes", lambda self, cost: None),
}


@pytest.mark.parametrize("mistake", WINDOWS)
def test_mistakes_in_windows(make_recorded, recordings, monkeypatch, mistake):
    file, owner, name, wrong = WINDOWS[mistake]
    monkeypatch.setattr(owner, name, wrong)
    assert worst_in_evaluation(make_recorded, recordings, file) > 1


TEST_OPTIONS = {
    "synonyms averaged": ("eval_slide", "MODEL.VOCABULARY.SYNONYMS", "mean"),
    "names with synonyms as one phrase": ("eval_slide", "MODEL.VOCABULARY.SYNONYMS", "whole"),
    "another pooling at test": ("eval_slide", "MODEL.CATSEG.POOLING_TEST", [2, 2]),
    "windows that overlap more": ("eval_slide", "MODEL.CATSEG.WINDOWS.OVERLAP", 0.5),
}


@pytest.mark.parametrize("mistake", TEST_OPTIONS)
def test_wrong_options_at_test(make_recorded, recordings, mistake):
    file, *option = TEST_OPTIONS[mistake]
    assert worst_in_evaluation(lambda *given: make_recorded(*given, *option), recordings, file) > 1


def test_epsilon_of_the_decoder_in_float64(make_recorded, recordings):
    """Rounding hides this mistake in float32."""
    if not recordings.file("float64"):
        pytest.skip("float64.npz is not among the recordings")
    model = make_recorded().double()
    set_norms(model.aggregator.decoders.modules(), nn.GroupNorm, 1e-6)
    with torch.no_grad():
        loss, _ = training_pass(model, recordings)
    assert abs(float(loss) - float(recordings.file("float64")["train:loss"])) > 1e-8


def test_antialiasing_of_the_canvas(make_recorded, recordings, monkeypatch):
    if not recordings.file("window_inputs"):
        pytest.skip("window_inputs.npz is not among the recordings")

    def antialiased(maps, size):
        return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False, antialias=True)

    picture = recordings.tensor("window_inputs", "picture").float()
    views = make_recorded().views
    right = views.cut(picture)
    monkeypatch.setattr(windows, "resize", antialiased)
    assert (views.cut(picture)[0] - right[0]).abs().max() > 1
