"""The demo's segmentation stage over one encoder, with two steps of training on a few scenes."""

import numpy as np
import pytest

from denserc.construction import build_dense_model, save_checkpoint
from denserc.data.datasets.builtin import register_miniature
from denserc.miniature.annotations import ALL_NAMES
from denserc.miniature.demo import segmentation
from denserc.miniature.demo.pictures import fresh_scenes
from denserc.miniature.demo.segmentation import compare_segmenters, make_segmenter, segmenter_path, true_labels
from denserc.miniature.demo.stages import CONTENDERS, Places, prepare_world, stage_config
from denserc.miniature.world import Domain
from denserc.miniature.write_world import Sizes
from tests.paths import CONFIGS

SIZES = Sizes(train=4, val=3, transfer=2, lvis_train=1, lvis_val=1)
FEW = ["SOLVER.MAX_ITER", 2]
CLIP = CONTENDERS[0]


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> Places:
    places = Places(tmp_path_factory.mktemp("demo"), CONFIGS)
    prepare_world(places, sizes=SIZES)
    folder = places.folder(0, CLIP, "encoder")
    cfg = stage_config(places, "miniature/distill_clipself.yaml", folder, 0, None)
    save_checkpoint(places.encoder(0, CLIP), build_dense_model(cfg))
    yield places
    register_miniature(places.output / "absent")


@pytest.fixture(scope="module")
def result(places) -> dict:
    return make_segmenter(places, CLIP, 0, FEW)


def test_both_domains_and_dense_features_are_scored(result):
    assert set(result) == {"segmentation", "segmentation_transfer", "dense_segmentation", "seconds"}
    for key in ("segmentation", "dense_segmentation"):
        metrics = result[key]
        assert 0 <= min(metrics["mIoU_seen"], metrics["mIoU_unseen"]) <= metrics["mIoU"] <= 100
    assert "mIoU_unseen" not in result["segmentation_transfer"]
    # The undistilled CLIP knows stuff: two steps of CAT-Seg do not reach its dense features.
    assert result["dense_segmentation"]["pACC"] > 30


def test_a_finished_stage_is_not_computed_again(places, result, monkeypatch):
    def compute_again(*args, **kwargs):
        raise AssertionError("computed again")

    monkeypatch.setattr(segmentation.segmentation, "run", compute_again)
    assert make_segmenter(places, CLIP, 0, FEW) == result
    with pytest.raises(AssertionError, match="computed again"):
        make_segmenter(places, CLIP, 0, ["SOLVER.MAX_ITER", 3])


def test_pages_show_truth_and_predictions_in_both_domains(places, result, monkeypatch):
    assert segmenter_path(places, 0, CLIP).is_file()
    monkeypatch.setattr(segmentation, "CONTENDERS", (CLIP,))
    pages = [compare_segmenters(places, 0, domain, count=2) for domain in Domain]
    assert all(page.dtype == np.uint8 and page.ndim == 3 for page in pages)
    columns = 3  # picture, ground truth, one encoder
    assert all(columns * 256 < page.shape[1] < (columns + 1) * 256 for page in pages)
    assert not np.array_equal(pages[0][:256], pages[1][:256])


def test_true_labels_name_the_pixels_of_a_scene():
    scene = fresh_scenes(1, things=3)[0]
    labels = true_labels(scene)
    assert labels.shape == scene.segments.shape
    for value, name in enumerate(scene.names):
        assert {ALL_NAMES[label] for label in np.unique(labels[scene.segments == value])} <= {name}
