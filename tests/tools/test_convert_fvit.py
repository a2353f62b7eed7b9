"""Published detectors through the command line: shrunk ones always, recorded ones where available."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from denserc.commands.convert_fvit import main
from denserc.data.images.reading import read_rgb
from denserc.detection import load_detector
from denserc.detection.convert import from_mmdetection, original_to_ours
from denserc.detection.data import FitSquare
from denserc.detection.modeling.options import Padding, Resampling
from denserc.encoders import to_open_clip_keys
from denserc.structures import (
    BACKGROUND,
    CheckpointError,
    ConfigurationError,
    FingerprintMismatchError,
    TextEmbeddings,
    WeightsMismatchError,
)
from denserc.tools.convert_fvit import name_embeddings, published_config
from tests.paths import DATA
from tests.published import published_shapes, register_tiny_eva, shrunk_detector, write_detector_config
from tests.published import write_random_clip as write_clip

RECORDED = DATA / "fixtures" / "fvit"
TOWER = {"patch": 16, "clip_image_size": 112, "width": 96, "depth": 6, "heads": 6, "embed": 48, "mlp_ratio": 1.6667}
HEADS = {"fpn": 32, "out_indices": [1, 2, 3, 5], "vlm_T": 75.0, "alpha": 0.1, "beta": 0.8, "size": 112}
SPEC = {**TOWER, **HEADS}


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """(name, file) of a tiny EVA-02 CLIP of the shrunk detector's size."""
    folder = tmp_path_factory.mktemp("clip")
    name = register_tiny_eva(folder, "DenseRC-Test-Shrunk", SPEC)
    return name, write_clip(folder / "clip.pt", name)


@pytest.fixture()
def published(tmp_path, tiny_clip):
    """convert(state, *more arguments) -> path of the checkpoint that the command writes."""

    def convert(state: dict, *more: str) -> Path:
        torch.save({"meta": {"epoch": 3, "mmdet_version": "2.28.1"}, "state_dict": state}, tmp_path / "fvit.pth")
        config = write_detector_config(tmp_path / "tiny.yaml", tiny_clip[0], SPEC)
        command = [str(tmp_path / "fvit.pth"), str(tmp_path / "out" / "ours.pth"), "--clip", str(tiny_clip[1])]
        main([*command, "--construction", "clipself", "--config", str(config), *more])
        return tmp_path / "out" / "ours.pth"

    return convert


def test_every_tensor_arrives_and_the_file_stands_alone(published, capsys):
    state = shrunk_detector()
    model = load_detector(published(state))
    said = capsys.readouterr().out
    assert f"read {len(state)} entries" in said and "a plain CLIP" not in said
    own = model.state_dict()
    tower = to_open_clip_keys(
        {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.vis")}
    )
    for key, value in tower.items():
        assert torch.equal(own[f"backbone.encoder.tower.visual.{key.removeprefix('visual.')}"], value), key
    trained = [key for key in state if original_to_ours(key)]
    assert all(torch.equal(own[original_to_ours(key)], state[key]) for key in trained)
    text = [key for key in own if key.startswith("text_tower.")]
    assert len(own) == len(tower) + len(trained) + len(text)
    assert model.metadata["construction"]["values"] == "last_block_residual"
    model.set_vocabulary(["cup", "kite"], novel=["kite"])
    found = model([{"image": torch.randint(0, 255, (3, 90, 120), dtype=torch.uint8)}])[0]["instances"]
    assert torch.isfinite(found.scores).all()


@torch.no_grad()
def test_images_that_are_not_square_need_no_padding(published):
    """MMDetection F-ViT needs square images; here a square is one more case of the same code."""
    model = load_detector(published(shrunk_detector()))
    model.set_vocabulary(["cup", "kite"], novel=["kite"])
    image = torch.randint(0, 255, (3, 80, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    square = model.preprocess([{"image": image}])
    model.padding = Padding.DIVISIBLE
    free = model.preprocess([{"image": image}])
    assert square.tensor.shape[-2:] == (112, 112) and torch.equal(free.tensor, square.tensor[..., :80, :])
    features = model.backbone(free.tensor)
    assert features["dense"].shape[-2:] == (5, 7)
    assert [features[f"p{i}"].shape[-2:] for i in (2, 3, 4)] == [(20, 28), (10, 14), (5, 7)]
    # The frozen encoder attends to padding, so it matters; where a batch needs none, both paddings are one.
    assert (features["dense"] - model.backbone(square.tensor)["dense"][..., :5, :]).abs().max() > 1e-3
    full = torch.cat([image, image[:, :32]], dim=1)
    assert torch.equal(model.preprocess([{"image": full}]).tensor[..., :80, :], free.tensor)
    found = model([{"image": image}])[0]["instances"]
    assert found.image_size == (80, 112) and torch.isfinite(found.scores).all()


def test_nothing_of_this_machine_is_in_the_file(published, tmp_path):
    content = torch.load(published(shrunk_detector()), weights_only=True)
    assert str(tmp_path) not in str(content["denserc"]) and not list((tmp_path / "out").glob(".*"))


def test_what_does_not_fit_is_listed_in_full(published, tmp_path):
    state = shrunk_detector()
    strangers = [f"roi_head.semantic_head.{i}.weight" for i in range(30)]
    with pytest.raises(WeightsMismatchError) as error:
        published({**state, **{key: torch.zeros(1) for key in strangers}})
    assert error.value.unexpected == sorted(strangers)
    state["neck.fpn_convs.0.conv.weight"] = torch.zeros(1)
    del state["rpn_head.rpn_cls.bias"]
    with pytest.raises(WeightsMismatchError, match="--config") as error:
        published(state)
    assert error.value.missing == ["proposal_generator.head.objectness.bias"]
    assert [key for key, _, _ in error.value.misshapen] == ["backbone.pyramid.outputs.0.0.weight"]
    assert not (tmp_path / "out").exists()
    with pytest.raises(CheckpointError, match="no F-ViT"):
        published({"visual.blocks.0.norm1.weight": torch.zeros(1)})


def test_a_file_that_holds_a_plain_clip_is_said_to(published, tiny_clip, capsys):
    clip = torch.load(tiny_clip[1], weights_only=True)["state_dict"]
    state = shrunk_detector()
    original = {new: old for old in state for new in to_open_clip_names(old)}
    state |= {original[key]: value for key, value in clip.items() if key.startswith("visual.")}
    published(state)
    assert "0 of" in (said := capsys.readouterr().out) and "a plain CLIP" in said


def to_open_clip_names(key):
    if not key.startswith("backbone.visual.") or "rope" in key:
        return []
    mark = {"visual.blocks.0.norm1.weight": None, "visual.blocks.0.attn.q_proj.weight": None}
    named = to_open_clip_keys({**mark, key.removeprefix("backbone."): True})
    return [new for new, value in named.items() if value]


def test_shapes_identify_the_four_published_configurations():
    for name, config in (("b16_ovcoco", "ovcoco_vitb16"), ("l14_ovlvis", "ovlvis_vitl14")):
        state = {key: torch.empty(shape, device="meta") for key, (shape, _) in published_shapes(name).items()}
        assert published_config(state, name) == config
    with pytest.raises(ConfigurationError, match="66 rows .* width 96"):
        published_config(shrunk_detector(), "a tiny one")


class Letters:
    """A text tower with a different embedding for each name."""

    def __init__(self, seed):
        self.vectors = torch.randn(128, 32, generator=torch.Generator().manual_seed(seed))

    def encode_text(self, prompts):
        return torch.stack([self.vectors[[ord(c) for c in p.split(" of ")[-1]]].mean(0) for p in prompts])

    def fingerprint(self):
        return f"letters-{self.vectors.sum().item():.4f}"


def test_class_embeddings_are_named_only_by_the_right_text_tower():
    names, tower = ("cup", "yacht", "lamp", "kite", "zebra", "box"), Letters(0)
    vectors = 3 * tower.encode_text([f"a photo of a {name}." for name in (*names, BACKGROUND)])
    named = name_embeddings(vectors, names, tower)
    assert named.names == (*names, BACKGROUND) and named.fingerprint == tower.fingerprint()
    torch.testing.assert_close(named.vectors.norm(dim=1), torch.ones(7))
    with pytest.raises(FingerprintMismatchError, match="another CLIP, or --classes"):
        name_embeddings(vectors, names, Letters(1))
    with pytest.raises(FingerprintMismatchError, match="another order"):
        name_embeddings(vectors, names[3:] + names[:3], tower)


@pytest.mark.parametrize("variant", ["coco", "lvis"])
def test_a_converted_detector_finds_what_the_original_found(variant, tmp_path):
    """From PNG file to boxes in the original image; all recordings are from MMDetection F-ViT."""
    if not RECORDED.is_dir():
        pytest.skip(f"the recordings of the original F-ViT are not at {RECORDED}")
    settings = json.loads((RECORDED / f"{variant}_config.json").read_text())
    spec, rules = settings["spec"], settings["model"]["test_cfg"]["rcnn"]
    name = register_tiny_eva(tmp_path, f"DenseRC-Test-Recorded-{variant}", spec)
    config = write_detector_config(tmp_path / "tiny.yaml", name, spec)
    weights = np.load(RECORDED / f"{variant}_weights.npz")
    state = {key: torch.from_numpy(weights[key]) for key in weights.files}
    torch.save({"state_dict": state}, tmp_path / "fvit.pth")
    options = ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", rules["score_thr"], "TEST.DETECTIONS_PER_IMAGE"]
    options += [rules["max_per_img"], "MODEL.ROI_HEADS.NMS_THRESH_TEST", rules["nms"]["iou_threshold"]]
    if variant == "lvis":
        options += ["MODEL.FVIT.RPN.NORM", "SyncBN", "MODEL.MASK_ON", "True"]
    clip = write_clip(tmp_path / "clip.pt", name)
    command = [str(tmp_path / "fvit.pth"), str(tmp_path / "ours.pth"), "--clip", str(clip), "--config", str(config)]
    main([*command, "--construction", "clipself", "--set", *map(str, options)])

    model = load_detector(tmp_path / "ours.pth")
    names = json.loads((RECORDED / f"{variant}_classes_all.json").read_text())
    _, vectors = from_mmdetection(state)
    novel = [names[i] for i in settings["novel_class_ids"]]
    model.set_text_embeddings(TextEmbeddings((*names, BACKGROUND), vectors), novel=novel)
    recorded = np.load(RECORDED / f"{variant}_e2e.npz")
    resize = FitSquare(spec["size"], resampling=Resampling.OPENCV_BILINEAR)
    for image in (0, 2):  # the second of these is not square
        pixels = read_rgb(RECORDED / f"{variant}_img{image}.png")
        small = resize.get_transform(pixels).apply_image(pixels)
        one = {"image": torch.from_numpy(small.transpose(2, 0, 1).copy())}
        found = model([{**one, "height": pixels.shape[0], "width": pixels.shape[1]}])[0]["instances"]
        assert found.pred_classes.tolist() == recorded[f"e2e_rescaled_labels_{image}"].tolist()
        np.testing.assert_allclose(found.scores.numpy(), recorded[f"e2e_rescaled_scores_{image}"], atol=1e-4)
        boxes = recorded[f"e2e_rescaled_boxes_{image}"]
        np.testing.assert_allclose(found.pred_boxes.tensor.numpy(), boxes, atol=2e-3)
