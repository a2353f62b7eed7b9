"""The measurement of section 6: constructions without attention have no off-target part, those with attention do."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from denserc.commands.interference import DEFAULT, main
from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
from denserc.encoders import build_clip
from denserc.miniature.write_world import Sizes, write_world
from denserc.structures import ConfigurationError, DataError
from denserc.tools.interference import build_encoders, measure

MIXING = {"denserc_qk", "denserc_qq", "declip"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_world(folder / "miniature", seed=1, sizes=Sizes(train=2, val=4, transfer=1, lvis_train=2, lvis_val=1))
    return folder


@pytest.fixture(scope="module")
def measured(root, tmp_path_factory):
    """interference.json of the packaged miniature CLIP on four drawn scenes."""
    folder = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        main(["--output", str(folder)])
    with Image.open(folder / "interference.png") as chart:
        assert chart.width > 600
    return json.loads((folder / "interference.json").read_text())


def test_off_target_parts_exist_in_attention_but_not_in_hsg(measured):
    assert measured["regions"] > 4 and set(measured["constructions"]) == set(DEFAULT)
    for name, values in measured["constructions"].items():
        if name in MIXING:
            assert values["off_share"] > 1e-3 and values["mass_off"] > 0.01
            assert values["off_share"] > measured["constructions"]["denserc"]["off_share"]
        else:
            assert values["off_share"] == values["mass_off"] == values["diagonal_share"] == values["error_off"] == 0
            assert values["error_without_off"] == values["error"] and values["cross_cosine"] is None


def test_the_printed_terms_add_up(measured):
    for values in measured["constructions"].values():
        total = values["error_rest"] + values["error_off"] + values["error_cross"]
        assert math.isclose(total, values["error"], abs_tol=1e-4)
        change = values["error_without_off"] - values["error"]
        assert math.isclose(change, values["error_change_without_off"], abs_tol=1e-6)


def scene(thing):
    """A picture of 128 x 128 whose upper left quarter is one thing and whose rest is stuff."""
    image = np.full((128, 128, 3), 90, dtype=np.uint8)
    image[:64, :64] = (200, 30, 30)
    mask = np.zeros((128, 128), dtype=bool)
    mask[:64, :64] = True
    segments = [
        {"label": 0, "isthing": True, "bbox": (0, 0, 64, 64), "mask": mask},
        {"label": 1, "isthing": False, "bbox": (0, 0, 128, 128), "mask": ~mask},
    ]
    return {"image": image, "segments": segments if thing is None else [s for s in segments if s["isthing"] == thing]}


def encoders_over(tower, *names):
    return {name: DenseEncoder(tower, Construction.named(name)).eval() for name in names}


def test_regions_weigh_alike_whatever_their_size(miniature):
    encoders, teacher = encoders_over(miniature.image, "denserc_qk"), miniature.image
    both, thing, stuff = (measure(encoders, teacher, [scene(kind)], input_size=64) for kind in (None, True, False))
    assert both["regions"] == 2 and both["patches"] == 64 and thing["patches"] == 16
    mass = [result["constructions"]["denserc_qk"]["mass_off"] for result in (both, thing, stuff)]
    assert math.isclose(mass[0], (mass[1] + mass[2]) / 2, rel_tol=1e-5)
    only_things = measure(encoders, teacher, [scene(None)], input_size=64, kinds=(True,))
    assert math.isclose(only_things["constructions"]["denserc_qk"]["mass_off"], mass[1], rel_tol=1e-5)


def test_all_other_patches_are_more_than_those_outside(miniature):
    encoders = encoders_over(miniature.image, "denserc_qk")
    outside, others = (
        measure(encoders, miniature.image, [scene(None)], input_size=64, unrelated=reading)["constructions"]
        for reading in ("outside_region", "other_patches")
    )
    assert others["denserc_qk"]["mass_off"] > outside["denserc_qk"]["mass_off"] > 0


def test_the_target_is_the_class_token_of_the_crop(miniature):
    """With one region over the whole picture its crop is the picture, and the error is that to its class token."""

    teacher = miniature.image
    encoder = DenseEncoder(teacher, Construction.named("denserc_none")).eval()
    image = {"image": np.full((64, 64, 3), 90, np.uint8), "segments": scene(True)["segments"]}
    image["segments"][0]["mask"] = np.ones((64, 64), dtype=bool)
    image["segments"][0]["bbox"] = (0, 0, 64, 64)
    near = measure({"a": encoder}, teacher, [image], input_size=64)["constructions"]["a"]["error"]
    with torch.no_grad():
        pixels = teacher.pixels.normalize(torch.full((1, 3, 64, 64), 90 / 255))
        target = torch.nn.functional.normalize(teacher.encode_image(pixels))
        dense = torch.nn.functional.normalize(encoder(pixels)).flatten(2)[0].T
    assert math.isclose(near, float((dense - target).square().sum(-1).mean()), rel_tol=1e-4)


def test_pooling_beats_the_patch_mean_and_equals_it_for_one(miniature):
    encoders, entry = encoders_over(miniature.image, "denserc_none"), scene(True)
    values = measure(encoders, miniature.image, [entry], input_size=64)["constructions"]["denserc_none"]
    assert values["error_pooled"] < values["error"]
    mask = np.zeros((128, 128), dtype=bool)
    mask[16:32, 16:32] = True  # one patch of the 64-pixel input
    entry["segments"][0] |= {"mask": mask, "bbox": (16, 16, 32, 32)}
    result = measure(encoders, miniature.image, [entry], input_size=64)
    values = result["constructions"]["denserc_none"]
    assert result["patches"] == 1 and math.isclose(values["error_pooled"], values["error"], rel_tol=1e-5)


def test_no_region_is_an_error(miniature):
    with pytest.raises(DataError, match="half a patch"):
        measure(
            encoders_over(miniature.image, "declip"), miniature.image, [scene(None) | {"segments": []}], input_size=64
        )


def test_a_folder_with_coco_annotations_is_measured_too(root, tmp_path):
    coco = root / "miniature" / "coco"
    arguments = ["--images", str(coco / "val2017"), "--annotations", str(coco / "annotations/instances_val2017.json")]
    main([*arguments, "--num-images", "2", "--constructions", "declip", "denserc", "--output", str(tmp_path)])
    found = json.loads((tmp_path / "interference.json").read_text())
    assert list(found["constructions"]) == ["declip", "denserc"] and found["settings"]["data"].endswith("val2017.json")
    with pytest.raises(ConfigurationError, match="belong together"):
        main([*arguments[:2], "--output", str(tmp_path)])


def test_checkpoint_tower_serves_all_and_its_gates_only_its_own(tmp_path):
    clip = build_clip("DenseRC-Miniature")
    own = DenseEncoder(clip.image, Construction())
    with torch.no_grad():
        own.gates.projections[0].weight.normal_()
        clip.image.visual.trunk.cls_token.add_(1)
    save_checkpoint(tmp_path / "m.safetensors", DenseModel(own, clip.text, clip.logit_scale, {}))
    encoders, teacher, _ = build_encoders(["denserc", "declip"], str(tmp_path / "m.safetensors"), "", "")
    assert list(encoders) == ["denserc", "declip"] and encoders["declip"].tower is encoders["denserc"].tower
    torch.testing.assert_close(encoders["denserc"].gates.projections[0].weight, own.gates.projections[0].weight)
    assert not torch.equal(teacher.visual.trunk.cls_token, encoders["declip"].tower.visual.trunk.cls_token)


def test_a_teacher_without_weights_is_asked_for():
    with pytest.raises(ConfigurationError, match="--weights"):
        build_encoders(["denserc"], "", "EVA02-B-16", "")
