"""Six images of colored squares, and detectors over the random miniature CLIP that train on them for a few steps."""

import json
from pathlib import Path

import cv2
import numpy as np
import torch

from denserc.config import read_config
from denserc.detection.engine import run
from tests.paths import CONFIGS

CLASSES = ("red square", "blue square", "green square")
CONFIG = CONFIGS / "miniature" / "fvit.yaml"

# Norms that look at one image, all candidates sampled so that nothing is drawn, and divisors that are the same numbers
# in every forward: all anchors (none between two thresholds is ignored), 10 proposals and 2 squares per image.
NOTHING_DRAWN = {
    "MODEL__FPN__NORM": "GN",
    "MODEL__ROI_BOX_HEAD__NORM": "GN",
    "MODEL__FPN__OUT_CHANNELS": 32,
    "MODEL__ROI_BOX_HEAD__CONV_DIM": 32,
    "MODEL__RPN__BATCH_SIZE_PER_IMAGE": 10000,
    "MODEL__RPN__IOU_THRESHOLDS": [0.5, 0.5],
    "MODEL__RPN__POST_NMS_TOPK_TRAIN": 10,
    "MODEL__ROI_HEADS__BATCH_SIZE_PER_IMAGE": 200,
    "MODEL__ROI_HEADS__POSITIVE_FRACTION": 1.0,
    "INPUT__SCALE_JITTER": [1.0, 1.0],
    "SOLVER__IMS_PER_BATCH": 4,
}


def write_squares(root: Path, *, segmented=lambda image, label: False, crowd: bool = True) -> Path:
    """Six images of squares, upright and wide, one of each class; a COCO file of them.

    Args:
        segmented: (image's number, label) -> whether that square has a polygon.
        crowd: True to make the last image's first square a crowd.
    """
    rng, images, annotations = np.random.default_rng(0), [], []
    for i in range(6):
        h, w = (48, 64) if i % 2 else (64, 40)
        picture = np.full((h, w, 3), 128, dtype=np.uint8)
        for label in range(3):
            x, y = (int(v) for v in rng.integers(0, (w - 20, h - 20)))
            picture[y : y + 18, x : x + 18] = np.eye(3, dtype=np.uint8)[2 - label] * 255  # BGR
            box = {"bbox": [x, y, 18, 18], "area": 324, "iscrowd": int(crowd and i == 5 and label == 0)}
            if segmented(i, label):
                box["segmentation"] = [[x, y, x + 18, y, x + 18, y + 18, x, y + 18]]
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": label + 7, **box})
        cv2.imwrite(str(root / f"{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png", "height": h, "width": w})
    categories = [{"id": i + 7, "name": name} for i, name in enumerate(CLASSES)]
    file = root / "squares.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return file


def squares_config(folder: Path, **changes):
    """Four steps of two images at 32 pixels; changes by dotted key with __ for the dots."""
    cfg = read_config(CONFIG)
    cfg.defrost()
    cfg.MODEL.ENCODER.RANDOM_INIT = True
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = ("squares_train",), ("squares_val",)
    cfg.INPUT.SIZE = 32
    cfg.MODEL.FPN.OUT_CHANNELS = cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 8
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV, cfg.MODEL.ROI_MASK_HEAD.NORM = 1, "BN"
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2, 4, 2
    cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS = (), 2
    cfg.OUTPUT_DIR = str(folder / "run")
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    return cfg


class Recorder:
    """An evaluator that keeps its inputs."""

    def __init__(self, name, folder):
        self.name, self.found = name, {}

    def reset(self):
        self.found = {}

    def process(self, inputs, outputs):
        for one, output in zip(inputs, outputs, strict=True):
            self.found[one["image_id"]] = output["instances"].scores

    def evaluate(self):
        total = sum(float(scores.sum()) for scores in self.found.values())
        return {"squares": {"images": float(len(self.found)), "total": total}}


def train(cfg, **options):
    torch.manual_seed(0)  # the random initial weights
    return run(cfg, **{"evaluator_factory": Recorder, **options})


def saved(cfg, name="model_final"):
    return torch.load(Path(cfg.OUTPUT_DIR) / f"{name}.pth", weights_only=True)


def assert_same_weights(first: dict, second: dict, *, but: tuple[str, ...] = ()) -> None:
    """Assert that two state dicts are bitwise identical."""
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert key.startswith(but or ("-",)) or torch.equal(value, second[key]), key
