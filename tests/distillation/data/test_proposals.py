"""Proposals as regions: drawing, matching with images, and the training from a config."""

import json
import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from denserc.config import read_config
from denserc.data.proposals import ProposalTable
from denserc.distillation.build import build_regions
from denserc.distillation.data.crops import CropTransform
from denserc.distillation.data.dataset import DistillationDataset
from denserc.distillation.data.regions import GridRegions, ImageRecord, ProposalRegions, match_images
from denserc.distillation.data.sources import folder_images
from denserc.distillation.engine import run
from denserc.structures import ConfigurationError, DataError
from tests.paths import CONFIGS

SIZE = (50, 100)  # (h, w)
TWO = (ImageRecord("a.png", 1, SIZE), ImageRecord("b.png", 2, SIZE))


def table(**boxes_of) -> ProposalTable:
    """Build a table from keywords image id = its boxes, best first."""
    spans, rows = {}, []
    for key, boxes in boxes_of.items():
        spans[key.strip("_")] = (len(rows), len(rows) + len(boxes))
        rows += boxes
    scores = np.linspace(1, 0, len(rows), dtype=np.float32)
    return ProposalTable(boxes=np.array(rows, dtype=np.float32).reshape(-1, 4), scores=scores, spans=spans)


def regions(*tables, records=TWO, **options):
    named = {f"{i}.json": one for i, one in enumerate(tables)}
    return ProposalRegions(records, named, fallback=GridRegions(max_split=1), **options)


def test_draws_are_random_subsets_that_follow_from_the_generator():
    boxes = [[i, 0, i + 10, 20] for i in range(30)]
    source = regions(table(_1=boxes), max_regions=8)
    record, counts = ImageRecord("a.png", 1, SIZE), Counter()
    for seed in range(600):
        drawn = source.sample(record, random.Random(seed))
        assert torch.equal(drawn, source.sample(record, random.Random(seed)))
        assert drawn.dtype == torch.float32 and len({tuple(b) for b in drawn.tolist()}) == 8
        counts.update((drawn[:, 0] * 100).round().int().tolist())
    # Each of the 30 is expected 160 times; the 0.999 quantile of a chi-square of 29 degrees is 58.
    assert set(counts) == set(range(30))
    assert sum((n - 160) ** 2 / 160 for n in counts.values()) < 58
    everything = regions(table(_1=boxes), max_regions=0).sample(record, random.Random(0))
    torch.testing.assert_close(
        everything[everything[:, 0].argsort()], torch.tensor(boxes) / torch.tensor([100.0, 50, 100, 50])
    )


def test_files_are_added_up_and_boxes_are_cut_at_the_image():
    second = table(_1=[[90, 40, 200, 90], [99.5, 0, 120, 50]], _2=[[0, 0, 9, 9]])
    source = regions(table(_1=[[-10, -10, 50, 25]]), second)
    drawn = source.sample(ImageRecord("a.png", 1, SIZE), random.Random(0))
    assert sorted(drawn.tolist()) == [[0, 0, 0.5, 0.5], pytest.approx([0.9, 0.8, 1, 1])]  # half a pixel is not a region


def test_images_without_proposals_take_the_other_source():
    source = regions(table(_1=[[200, 200, 300, 300]]))
    whole = [[0.0, 0.0, 1.0, 1.0]]
    assert source.covers(ImageRecord("a.png", 1)) and not source.covers(ImageRecord("b.png", 2))
    for record in (ImageRecord("a.png", 1, SIZE), ImageRecord("b.png", 2, SIZE)):  # outside the image; none at all
        assert source.sample(record, random.Random(0)).tolist() == whole


@pytest.mark.parametrize(
    ("record", "key"),
    [
        (ImageRecord("x/1.png", 139), "139"),
        (ImageRecord("x/1.png", "000139"), "139"),
        (ImageRecord("x/000000000139.jpg", "x/000000000139.jpg"), "139"),
        (ImageRecord("x/2007_000032.jpg", "x/2007_000032.jpg"), "2007_000032"),
        (ImageRecord("x/a.jpg", "x/a.jpg"), "a.jpg"),
        (ImageRecord("x/a.jpg", "x/a.jpg"), "x/a.jpg"),
    ],
)
def test_ids_are_matched_whatever_their_spelling(record, key):
    assert match_images([record], table(**{key: [[0, 0, 9, 9]]}), "p.json") == {record.path: (0, 1)}


def test_files_of_other_images_are_refused_with_samples_of_both():
    other = table(_77=[[0, 0, 9, 9]])
    with pytest.raises(DataError, match=r"1\.json has proposals of none of the 2 images.*'77'.*'1', '2'"):
        regions(table(_1=[[0, 0, 9, 9]]), other)
    twins = (ImageRecord("x/1.png", 1), ImageRecord("y/1.png", "y/1.png"))
    with pytest.raises(DataError, match="image 1 fit two images, x/1.png and y/1.png"):
        regions(table(_1=[[0, 0, 9, 9]]), records=twins)
    with pytest.raises(ConfigurationError, match="PROPOSALS"):
        regions()


def test_boxes_are_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 40 x 20 (h, w), upright 20 x 40
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[:20] = 255  # the upper half as stored: upright, the right half
    Image.fromarray(pixels).save(tmp_path / "7.png", exif=exif)
    records = folder_images(str(tmp_path))
    source = ProposalRegions(records, {"p": table(_7=[[20, 0, 40, 20]])}, fallback=GridRegions())
    dataset = DistillationDataset(
        records=records, regions=source, crops=CropTransform(size=16), student_size=32, foundation_size=None
    )
    sample = dataset[0]
    assert (sample.crops == 255).all()
    torch.testing.assert_close(sample.boxes, torch.tensor([[0.5, 0.0, 1.0, 0.5]]))


def test_training_from_a_config(make_cfg, image_folder, tmp_path):
    entries = [{"image_id": i, "bbox": [2, 3, 20 + i, 15], "score": 0.1 * i} for i in range(9)]
    (tmp_path / "p.json").write_text(json.dumps(entries * 2))
    changes = ["DISTILL.REGIONS.PROPOSALS", (str(tmp_path / "p.json"),)]
    cfg = make_cfg(*changes, "SOLVER.MAX_ITER", 2, "DISTILL.CROP_SCALE", 1.5)
    assert run(cfg)["distillation"]["images"] == 8

    records = folder_images(str(image_folder))
    _, kept = build_regions(cfg, records)
    _, left = build_regions(make_cfg(*changes, "DISTILL.REGIONS.WITHOUT_PROPOSALS", "drop"), records)
    assert len(kept) == 10 and [r.path[-5:] for r in left] == [f"{i}.png" for i in range(9)]
    assert isinstance(build_regions(make_cfg(), records)[0], GridRegions)
    with pytest.raises(ConfigurationError, match="'grid', 'drop'"):
        build_regions(make_cfg(*changes, "DISTILL.REGIONS.WITHOUT_PROPOSALS", "ignore"), records)


def test_the_config_for_detection_enlarges_crops_as_clipself():
    cfg = read_config(CONFIGS / "distill" / "denserc_vitb16_proposals.yaml")
    assert cfg.DISTILL.REGIONS.PROPOSALS and cfg.DISTILL.CROP_SCALE == 1.5
    assert cfg.DATASETS.TRAIN == ("coco_2017_train_images",)  # whose ids are COCO's
