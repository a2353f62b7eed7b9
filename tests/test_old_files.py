"""Files of version 0.1 (tests/fixtures/v0_1, recorded by its own code) load and give the same results."""

import gzip
import shutil

import numpy as np
import pytest
import torch
import yaml

from denserc.config import get_denserc_config, read_config
from denserc.construction import load_checkpoint
from denserc.detection import load_detector
from denserc.engine.renamed_keys import OLD_KEYS, Removed, Renamed, convert_detector_config
from denserc.openvocab.checkpoint import METADATA, read_checkpoint, stored_config
from denserc.structures import CheckpointError, ConfigurationError, flatten
from tests import tiny_models
from tests.paths import FIXTURES

OLD = FIXTURES / "v0_1"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """unpacked(name) -> path of the file without its .gz."""
    folder = tmp_path_factory.mktemp("v0_1")
    for packed in OLD.glob("*.gz"):
        with gzip.open(packed) as source, (folder / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    return folder.joinpath


def test_an_old_detector_detects_what_it_did(unpacked):
    recorded = np.load(OLD / "detections.npz")
    detector = load_detector(unpacked("detector.pth"))
    detector.set_vocabulary(["red square", "green square", "blue square"], novel=["blue square"])
    images = torch.from_numpy(recorded["images"])
    with torch.no_grad():
        found = [result["instances"] for result in detector([{"image": image} for image in images])]
    for i, one in enumerate(found):
        assert len(one) == 20
        np.testing.assert_allclose(one.scores, recorded[f"scores_{i}"], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(one.pred_boxes.tensor, recorded[f"boxes_{i}"], atol=1e-3)
        np.testing.assert_array_equal(one.pred_classes, recorded[f"classes_{i}"])
        np.testing.assert_allclose(one.pred_masks.sum(dim=(1, 2)), recorded[f"masks_{i}"], atol=2)


def test_the_stored_configuration_has_present_keys(unpacked):
    path = unpacked("detector.pth")
    metadata = read_checkpoint(path)[METADATA]
    old, now = flatten(yaml.safe_load(metadata["config"])), flatten(stored_config(metadata, path))
    assert all(key in now or key in OLD_KEYS or key.startswith("DISTILL.") for key in old)
    assert set(now) <= set(flatten(get_denserc_config()))
    assert (old["MODEL.FVIT.FC_WIDTH"], now["MODEL.ROI_BOX_HEAD.FC_DIM"]) == (24, 24)
    assert (old["MODEL.FVIT.ROI.LOW_QUALITY"], now["MODEL.FVIT.ROI.LOW_QUALITY"]) == ("overwrite", True)
    clipping = {key: now[f"SOLVER.CLIP_GRADIENTS.{key}"] for key in ("ENABLED", "CLIP_TYPE", "CLIP_VALUE")}
    assert old["SOLVER.CLIP_NORM"] == 0.5
    assert clipping == {"ENABLED": True, "CLIP_TYPE": "full_model", "CLIP_VALUE": 0.5}
    assert now["MODEL.FVIT.CLASSIFIER.TEST_TEMPERATURE"] == 40.0 and now["MODEL.RPN.HEAD_NAME"] == "RPNHead"
    unchanged = stored_config({"config": yaml.safe_dump(stored_config(metadata, path))}, path)
    assert flatten(unchanged) == now


def test_a_configuration_written_back_is_read(unpacked, tmp_path):
    """The checkpoint's configuration, written as a user's file."""
    path = unpacked("detector.pth")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(stored_config(read_checkpoint(path)[METADATA], path)))
    assert read_config(tmp_path / "own.yaml").MODEL.ROI_BOX_HEAD.FC_DIM == 24


def test_a_later_configuration_keeps_its_other_keys():
    tree = {"DISTILL": {"MAX_UNREADABLE": 0.2, "CROP_SIZE": 3}, "DATALOADER": {"NUM_WORKERS": 1}, "SEED": 4}
    moved = flatten(convert_detector_config(tree, "m.pth"))
    assert moved == {
        "DATALOADER.MAX_UNREADABLE": 0.2,
        "DISTILL.CROP_SIZE": 3,
        "DATALOADER.NUM_WORKERS": 1,
        "SEED": 4,
    }
    present = {"DATALOADER": {"MAX_UNREADABLE": 0.2}, "MODEL": {"FVIT": {"ROI": {"LOW_QUALITY": True}}}}
    assert convert_detector_config(present, "m.pth") is present


OTHER_VALUES = {
    "MODEL.FVIT.PADDING": "divisible",
    "MODEL.FVIT.SIZE_CLAMP": "above",
    "MODEL.FVIT.RPN.NORMALISER": "fixed",
    "MODEL.FVIT.CLASSIFIER.LEARN_TEMPERATURE": False,
}


@pytest.mark.parametrize("key", OTHER_VALUES)
def test_a_detector_with_an_option_that_is_gone_is_refused(unpacked, key):
    metadata = read_checkpoint(unpacked("detector.pth"))[METADATA]
    tree = yaml.safe_load(metadata["config"])
    *groups, last = key.split(".")
    node = tree
    for group in groups:
        node = node[group]
    node[last] = OTHER_VALUES[key]
    with pytest.raises(CheckpointError, match=f"old.pth was trained with {key} {OTHER_VALUES[key]!r}"):
        convert_detector_config(tree, "old.pth")


def test_an_old_product_loads_and_says_how_it_was_made(unpacked):
    product = load_checkpoint(unpacked("denserc.safetensors"))
    assert product.encoder.embed_dim == tiny_models.tiny_config("CLIP")["embed_dim"]
    with torch.no_grad():
        dense = product.encoder.eval()(torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32))
    np.testing.assert_allclose(dense, np.load(OLD / "dense.npz")["dense"], atol=1e-5)
    assert "STUDENT_SIZE: 64" in product.extra["config"]


def test_renamed_keys_lead_to_keys_that_exist():
    present = flatten(get_denserc_config())
    for key, old in OLD_KEYS.items():
        if isinstance(old, Renamed):
            assert old.new in present, key
        assert key not in present or old.new == key
    assert sum(isinstance(old, Removed) for old in OLD_KEYS.values()) > 20


@pytest.mark.parametrize("key", [key for key, old in OLD_KEYS.items() if isinstance(old, Removed) or old.new != key])
def test_an_old_key_of_a_user_is_an_error_that_names_the_new(tmp_path, key):
    old = OLD_KEYS[key]
    expected = old.new if isinstance(old, Renamed) else "exists no more"
    with pytest.raises(ConfigurationError, match=rf"the command line: {key} .*{expected}"):
        read_config(None, [key, 1])


def test_an_old_value_of_a_present_key_is_explained():
    with pytest.raises(
        ConfigurationError, match="LOW_QUALITY is 'overwrite'; expected True or False. Version 0.1 .* True for 'over"
    ):
        read_config(None, ["MODEL.FVIT.ROI.LOW_QUALITY", "overwrite"])
    with pytest.raises(ConfigurationError, match="'student'; expected 'average', 'trained'"):
        read_config(None, ["SOLVER.EMA.EXPORT", "student"])
