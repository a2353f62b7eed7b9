"""Training-free segmentation: against a plain implementation of the published pipelines, and by its commands."""

import json
import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from denserc.config import get_denserc_config
from denserc.construction import Construction, DenseEncoder
from denserc.data.datasets.semantic import register_semantic_dataset
from denserc.data.images.labels import read_labels, write_labels
from denserc.evaluation import SegmentationEvaluator, detection_evaluators
from denserc.openvocab import engine
from denserc.openvocab.vocabulary import OpenVocabularyModel, Synonyms
from denserc.segmentation.dense import DENSE_MAPPERS, DenseSegmenter, Windows, _View, evaluate, resized
from denserc.segmentation.protocols import PROTOCOLS, WindowFit
from denserc.structures import CLIP_PIXELS, ConfigurationError
from tests.paths import CONFIGS

NAMES = ["red car, auto", "green tree", "blue sky", "lamp"]


class Colors(nn.Module):
    """An encoder of patches of 8 pixels whose feature is their mean color."""

    patch_size, embed_dim = 8, 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def forward(self, images):
        return torch.einsum("ec,bchw->behw", self.weight, F.avg_pool2d(images, self.patch_size))


class Letters(nn.Module):
    """Embeds the first color word of a sentence."""

    def encode_text(self, prompts):
        colors = {"red": 0, "green": 1, "blue": 2}
        rows = [next((axis for word, axis in colors.items() if word in prompt), None) for prompt in prompts]
        return torch.stack([torch.eye(3)[axis] if axis is not None else -torch.ones(3) for axis in rows])

    def fingerprint(self):
        return "letters"


@pytest.fixture
def segmenter(miniature):
    """segmenter(protocol, ...) over the random miniature CLIP with DeCLIP's last block."""

    def build(protocol="declip", **options) -> DenseSegmenter:
        encoder = DenseEncoder(miniature.image, Construction.named("declip_csa"))
        return DenseSegmenter(
            encoder=encoder, text_tower=miniature.text, pixels=CLIP_PIXELS, protocol=protocol,
            templates=["a photo of a {}."], **options,
        ).eval()  # fmt: skip

    return build


def picture(h: int, w: int, seed: int = 0) -> torch.Tensor:
    """Colored rectangles (3, h, w) uint8 with noise."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    pixels = cv2.resize(coarse, (w, h), interpolation=cv2.INTER_NEAREST) // 2 + draw.integers(0, 99, (h, w, 3))
    return torch.from_numpy(pixels.astype(np.uint8).transpose(2, 0, 1).copy())


def plain(model: DenseSegmenter, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The published post-processing, line by line, with all maps in memory: labels, background first (class 0)."""
    constants, patch = model.constants, model.encoder.patch_size
    pixels = resized(image.numpy().transpose(1, 2, 0), constants.short_side, constants.long_side)
    x = (torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() - model.pixel_mean) / model.pixel_std
    height, width = x.shape[-2:]
    crop_h = crop_w = constants.crop or max(height, width)
    stride = constants.stride or 1
    rows = max(height - crop_h + stride - 1, 0) // stride + 1
    columns = max(width - crop_w + stride - 1, 0) // stride + 1
    texts = model.classes.vectors
    total, count = torch.zeros(len(texts), height, width), torch.zeros(height, width)
    for i in range(rows):
        for j in range(columns):
            bottom, right = min(i * stride + crop_h, height), min(j * stride + crop_w, width)
            top, left = max(bottom - crop_h, 0), max(right - crop_w, 0)
            window = x[:, top:bottom, left:right]
            h, w = window.shape[-2:]
            if constants.fit is WindowFit.DROP:
                features = model.encoder(window[None, :, : h // patch * patch, : w // patch * patch])
                scores = torch.einsum("qe,eij->qij", texts, F.normalize(features, dim=1)[0])
                scores = F.interpolate(scores[None], (h, w), mode="bilinear")[0]
            else:
                multiple = constants.multiple or patch
                pad_h, pad_w = (-h) % multiple, (-w) % multiple
                up, before = pad_h // 2, pad_w // 2
                padded = F.pad(window, (before, pad_w - before, up, pad_h - up))
                features = model.encoder(padded[None])
                scores = torch.einsum("qe,eij->qij", texts, F.normalize(features, dim=1)[0])
                scores = F.interpolate(scores[None], padded.shape[-2:], mode="bilinear")[0]
                scores = scores[:, up : up + h, before : before + w]
            total[:, top:bottom, left:right] += scores
            count[top:bottom, left:right] += 1
    logits = F.interpolate((total / count)[None], size, mode="bilinear")[0]
    if constants.refinement:
        logits = pamr(F.interpolate(x[None], size, mode="bilinear"), logits[None], constants.refinement)[0]
    probabilities = (logits * constants.scale).softmax(0)
    order = [len(model.vocabulary), *range(len(model.vocabulary))] if model.classes.has_background else None
    order = order or list(range(len(model.vocabulary)))
    classes = torch.stack([probabilities[model.classes.label_of == label].max(0).values for label in order])
    if constants.area_threshold:
        areas = F.one_hot(classes.argmax(0), len(classes))[:, :, 1:].sum((0, 1))
        classes[1:] *= (areas > constants.area_threshold * areas.sum())[:, None, None]
    labels = classes.argmax(0)
    labels[classes.max(0).values < constants.threshold] = 0
    return labels


def tell_apart(model: DenseSegmenter, image: torch.Tensor) -> None:
    """Text vectors that random features prefer in different places: those of some of the picture's own patches."""
    pixels = torch.from_numpy(resized(image.numpy().transpose(1, 2, 0), 96, 2048).transpose(2, 0, 1).copy()).float()
    x = ((pixels - model.pixel_mean) / model.pixel_std)[:, :96, :136]
    features = F.normalize(model.encoder(x[None]), dim=1)[0].flatten(1).T
    features = features - features.mean(0)
    chosen = torch.linspace(0, len(features) - 1, len(model.classes.vectors)).long()
    model.classes.vectors = F.normalize(features[chosen], dim=1)


def best_probability(model: DenseSegmenter, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(h, w), by the model's own parts."""
    pixels = resized(image.numpy().transpose(1, 2, 0), model.constants.short_side, model.constants.long_side)
    x = (torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float() - model.pixel_mean) / model.pixel_std
    windows = Windows(tuple(x.shape[-2:]), model.constants.crop, model.constants.stride)
    with torch.no_grad():
        features = model.window_features(x, windows)
        view = _View(features, windows, size, None)
        maps = [m for _, m in model._score_maps(view, torch.arange(len(model.classes.vectors)))]
    return (torch.cat(maps) * model.constants.scale).softmax(0).amax(0)


def pamr(x: torch.Tensor, mask: torch.Tensor, steps: int) -> torch.Tensor:
    """The published module's arithmetic by dilated convolutions; x (1, K, h, w), mask (1, C, h, w)."""
    kernel = torch.eye(9).view(9, 1, 3, 3)

    def around(maps, taps):  # (B, K, taps per dilation, h, w)
        b, k, h, w = maps.shape
        flat = maps.view(b * k, 1, h, w)
        found = [F.conv2d(F.pad(flat, (d,) * 4, mode="replicate"), kernel[taps], dilation=d) for d in (8, 16)]
        return torch.cat(found, 1).view(b, k, -1, h, w)

    neighbors = [0, 1, 2, 3, 5, 6, 7, 8]
    std = around(x, list(range(9))).std(2, keepdim=True)
    affinity = -(around(x, neighbors) - x.unsqueeze(2)).abs() / (1e-8 + 0.1 * std)
    affinity = affinity.mean(1, keepdim=True).softmax(2)
    for _ in range(steps):
        mask = (around(mask, neighbors) * affinity).sum(2)
    return mask


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("background", [False, True])
def test_labels_equal_the_plain_pipeline(name, background, segmenter):
    many = [*NAMES, *(f"thing {letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    model = segmenter(name, short_side=100, phrases_at_once=7, windows_at_once=2)
    model._configure("voc21" if background else "", has_background=background)
    small = {"crop": 48, "stride": 20} if model.constants.crop else {}
    model.classes.constants = replace(model.constants, **small)
    OpenVocabularyModel.set_vocabulary(model, many)
    image = picture(117, 171)
    tell_apart(model, image)
    size = (117, 171)
    below = {}
    if background:  # a threshold in the middle of what occurs
        below = {"threshold": float(best_probability(model, image, size).median())}
    model.classes.constants = replace(model.constants, **below)
    found = model([{"image": image, "height": size[0], "width": size[1]}])[0]["sem_seg"]
    expected = plain(model, image, size)
    if background:  # label C here is class 0 there
        found = (found + 1) % (len(many) + 1)
    assert (found != expected).float().mean() < 1e-3  # ties of rounding
    assert len(expected.unique()) >= 3


def test_chunks_and_batches_do_not_change_labels(segmenter):
    image = picture(90, 140)
    results = []
    for phrases, windows in ((1, 1), (32, 8)):
        model = segmenter("declip", short_side=96, phrases_at_once=phrases, windows_at_once=windows)
        model.set_vocabulary(NAMES, background=True)
        results.append(model([{"image": image}])[0])
    assert (results[0]["sem_seg"] != results[1]["sem_seg"]).float().mean() < 1e-3
    torch.testing.assert_close(results[0]["scores"], results[1]["scores"])


@pytest.mark.parametrize("size", [(100, 173), (48, 48), (30, 200), (97, 48)])
@pytest.mark.parametrize("crop, stride", [(48, 20), (48, 48), (0, 0), (300, 100)])
def test_windows_cover_the_picture_and_stay_inside(size, crop, stride):
    windows = Windows(size, crop, stride)
    covered = np.zeros(size, int)
    for row, column in windows.places:
        a, b = windows.shape
        assert row + a <= size[0] and column + b <= size[1]
        covered[row : row + a, column : column + b] += 1
    assert covered.min() == 1 if crop == 0 else covered.min() >= 1
    if crop and stride:
        for side, own, axis in zip(size, windows.shape, range(2), strict=True):
            number = max(side - own + stride - 1, 0) // stride + 1
            assert len({place[axis] for place in windows.places}) == number


@pytest.mark.parametrize("h, w, expected", [(500, 375, (448, 336)), (100, 1000, (205, 2048)), (336, 336, (336, 336))])
def test_resizing_keeps_the_aspect_within_both_limits(h, w, expected):
    assert resized(np.zeros((h, w, 3), np.uint8), 336, 2048).shape[:2] == expected


def colors(protocol="whole_image", **options) -> DenseSegmenter:
    return DenseSegmenter(
        encoder=Colors(), text_tower=Letters(), pixels=CLIP_PIXELS, protocol=protocol, templates=["{}"],
        short_side=64, **options,
    ).eval()  # fmt: skip


def patches() -> torch.Tensor:
    """(3, 64, 96): red, green and blue thirds."""
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    for axis in range(3):
        image[axis, :, 32 * axis : 32 * (axis + 1)] = 255
    return image


def test_pixels_get_the_class_of_their_color_in_the_files_size():
    model = colors()
    model.set_vocabulary(NAMES)
    labels = model([{"image": patches(), "height": 32, "width": 48}])[0]["sem_seg"]
    assert labels.shape == (32, 48) and labels.dtype == torch.int64
    assert [labels[16, x].item() for x in (4, 24, 44)] == [0, 1, 2]


def test_each_synonym_counts_by_its_best():
    model = colors()
    model.set_vocabulary(["grass, green", "thing, red", "sea"])
    labels = model([{"image": patches()}])[0]["sem_seg"]
    assert [labels[32, x].item() for x in (8, 48)] == [1, 0]
    assert model.classes.label_of.tolist() == [0, 0, 1, 1, 2]


def test_background_label_comes_after_the_classes():
    model = colors(threshold=0.9)
    model.set_vocabulary(["red", "green"], background=True)
    labels = model([{"image": patches()}])[0]["sem_seg"]
    assert [labels[32, x].item() for x in (8, 48, 88)] == [0, 1, 2]  # the blue third is neither
    model.set_vocabulary(["red", "green"])
    assert set(model([{"image": patches()}])[0]["sem_seg"].unique().tolist()) <= {0, 1}


def test_a_background_name_that_is_a_class_is_told(caplog, forget_registered, tmp_path):
    register_semantic_dataset("o", tmp_path, tmp_path, classes=["background", "bed", "red"], benchmark="coco_object")
    model = colors("sclip")
    model.use_dataset("o")
    assert "['bed'] are classes and also prompted as background" in caplog.text
    assert (model.classes.label_of[:26] == 2).all() and len(model.classes.vectors) == 28


def test_nothing_trains_and_options_are_checked(segmenter):
    model = segmenter()
    assert not [name for name, p in model.named_parameters() if p.requires_grad]
    model.set_vocabulary(NAMES)
    with pytest.raises(ConfigurationError, match="nothing to train"):
        model.train()([{"image": picture(32, 32)}])
    with pytest.raises(ConfigurationError, match="known are sclip"):
        segmenter("nobody")
    with pytest.raises(ConfigurationError, match="at least 1"):
        segmenter(phrases_at_once=0)
    with pytest.raises(ConfigurationError, match="MODEL.VOCABULARY.SYNONYMS"):
        segmenter(synonyms=Synonyms.MEAN)


@pytest.mark.parametrize("size", [(5, 40), (3, 3)])
@pytest.mark.parametrize("name", ["sclip", "declip"])
def test_tiny_pictures_have_labels(name, size, segmenter):
    model = segmenter(name, short_side=3)
    model.set_vocabulary(NAMES)
    assert model([{"image": picture(*size)}])[0]["sem_seg"].shape == size


@pytest.fixture
def street(tmp_path, forget_registered):
    """Four pictures with labels of three classes and a background, registered as "street"."""
    for i in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(picture(40, 56, i).numpy().transpose(1, 2, 0)).save(tmp_path / f"images/{i}.png")
        labels = np.random.default_rng(i).integers(0, 4, (40, 56), dtype=np.uint8)
        write_labels(tmp_path / f"labels/{i}.png", labels)
    register_semantic_dataset(
        "street", tmp_path / "images", tmp_path / "labels", classes=["background", *NAMES[1:]], novel=["lamp"]
    )
    return tmp_path


def config(folder, *more):
    cfg = get_denserc_config()
    cfg.merge_from_file(str(CONFIGS / "dense_segmentation.yaml"))
    cfg.merge_from_list([
        "MODEL.ENCODER.NAME", "DenseRC-Miniature", "MODEL.CONSTRUCTION.NAME", "declip_csa", "MODEL.DEVICE", "cpu",
        "DATASETS.TEST", "('street',)", "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", str(folder / "out"),
        "MODEL.DENSE_SEGMENTER.SHORT_SIDE", 48, *more,
    ])  # fmt: skip
    return cfg


def test_evaluation_from_a_config_resumes_and_rescores(street, caplog):
    cfg = config(street)
    logger = logging.getLogger("denserc.segmentation.dense")
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.INFO)
    results = evaluate(cfg, detection_evaluators(cfg))["street"]["sem_seg"]
    logger.removeHandler(caplog.handler)
    assert 0 <= results["mIoU"] <= 100 and "mIoU_unseen" in results
    folder = street / "out/inference/street"
    assert "random, its predictions mean nothing" not in caplog.text  # nothing is missing
    assert "declip: short side 48, windows 336 / 112, names proxy" in caplog.text
    written = {p.name: read_labels(p) for p in (folder / "predictions").glob("*.png")}
    assert len(written) == 4 and max(int(one.max()) for one in written.values()) <= 3
    (folder / "predictions/2.png").unlink()
    resumed = config(street, "TEST.RESUME_PREDICTIONS", True)
    assert evaluate(resumed, detection_evaluators(resumed))["street"]["sem_seg"] == results
    assert SegmentationEvaluator.of_dataset("street").evaluate_folder(folder / "predictions")["sem_seg"] == results
    other = config(street, "TEST.RESUME_PREDICTIONS", True, "MODEL.DENSE_SEGMENTER.PROTOCOL", "clearclip")
    with pytest.raises(ConfigurationError, match="other weights, another vocabulary or other settings"):
        evaluate(other, detection_evaluators(other))
    assert json.loads((folder / "sem_seg_results.json").read_text())["settings"]["images"] == 4


def test_training_it_is_refused(street):
    cfg = config(street, "DATASETS.TRAIN", "('street',)")
    with pytest.raises(ConfigurationError, match="nothing to train"):
        engine.run(cfg, DENSE_MAPPERS)
