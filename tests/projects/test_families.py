"""Each family of encoders end to end, by the real engines: distilled, saved, loaded into F-ViT, one detection pass."""

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from denserc.config import read_config
from denserc.construction import load_checkpoint
from denserc.distillation.engine import run
from denserc.distillation.export import PRODUCT_NAME
from tests.paths import CONFIGS
from tests.tiny_models import register, tiny_config

CONFIGS = CONFIGS / "miniature"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Six coarse pictures as JPEGs."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(6):
        coarse = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((80, 64)).save(folder / f"{index}.jpg")
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny model of each family whose text tower knows all of CLIP's words."""
    folder = tmp_path_factory.mktemp("models")
    names = {"EVA": "DenseRC-Miniature"}
    for family in ("CLIP", "Sigmoid"):
        config = tiny_config(family)
        config["text_cfg"]["vocab_size"] = 49408
        names[family] = register(folder, f"DenseRC-Test-{family}-Words", config)
    return names


def configure(file, *changes):
    cfg = read_config(CONFIGS / file, changes)
    cfg.defrost()
    return cfg


@pytest.mark.parametrize(
    ("family", "blocks"), [("EVA", (1, 2, 3, 5)), ("CLIP", (0, 1, 2, 3)), ("Sigmoid", (0, 1, 2, 3))]
)
def test_distil_save_load_detect(pictures, models, tmp_path, family, blocks):
    name = models[family]
    cfg = configure(
        "distill_denserc.yaml", "MODEL.ENCODER.NAME", name, "MODEL.ENCODER.RANDOM_INIT", True,
        "OUTPUT_DIR", str(tmp_path), "DISTILL.SOURCES", (f"folder:{pictures}",), "DATASETS.TRAIN", (),
        "DATASETS.TEST", (), "INPUT.SIZE", 48, "DISTILL.CROP_SIZE", 32,
        "DISTILL.REGIONS.MAX_SPLIT", 2, "SOLVER.AMP.ENABLED", False, "SEED", 1,
        "SOLVER.IMS_PER_BATCH", 2, "SOLVER.MAX_ITER", 30, "SOLVER.WARMUP_ITERS", 3, "SOLVER.BASE_LR", 1e-3,
    )  # fmt: skip
    losses = run(cfg)["distillation"]
    assert losses["steps"] == 30 and np.isfinite(losses["total_loss"])

    path = tmp_path / PRODUCT_NAME
    product = load_checkpoint(path)
    assert product.encoder.tower.name == name and product.extra["steps"] == 30
    assert product.encoder.gates.projections[0].weight.abs().max() > 0  # they start at zero

    cfg = configure(
        "fvit.yaml", "MODEL.ENCODER.CHECKPOINT", str(path), "MODEL.DEVICE", "cpu", "MODEL.FVIT.BLOCKS", blocks,
        "INPUT.SIZE", 64, "MODEL.FPN.OUT_CHANNELS", 8, "MODEL.ROI_BOX_HEAD.CONV_DIM", 8, "DATASETS.TRAIN", (),
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "MODEL.RPN.POST_NMS_TOPK_TEST", 20, "DATASETS.TEST", (),
    )  # fmt: skip
    detector = build_model(cfg).eval()
    towers = {k: v for k, v in product.encoder.state_dict().items()}
    frozen = detector.backbone.encoder.state_dict()
    assert towers.keys() == frozen.keys() and all(torch.equal(v, frozen[k]) for k, v in towers.items())
    detector.set_vocabulary(["red disc", "blue square"])
    image = torch.from_numpy(np.asarray(Image.open(pictures / "0.jpg")).copy()).permute(2, 0, 1)
    with torch.no_grad():
        found = detector([{"image": image}])[0]["instances"]
    assert len(found) > 0 and set(found.pred_classes.tolist()) <= {0, 1}
    assert torch.isfinite(found.pred_boxes.tensor).all() and torch.isfinite(found.scores).all()
