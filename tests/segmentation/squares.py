"""The six pictures of squares as a semantic set, and CAT-Seg over the random miniature CLIP that trains on them."""

from pathlib import Path

import numpy as np
from detectron2.evaluation import DatasetEvaluator

from denserc.config import get_denserc_config
from denserc.data.datasets.semantic import register_semantic_dataset
from denserc.data.images.labels import write_labels
from denserc.structures.files import read_annotation_file
from tests.detection.squares import CLASSES, write_squares
from tests.paths import CONFIGS

IGNORED = 255
TRAIN, VAL = "semantic_squares_train", "semantic_squares_val"


def register_squares(root: Path) -> None:
    """Write the pictures and their labels, 255 beside the squares, and register them for training and validation."""
    content = read_annotation_file(write_squares(root, crowd=False))
    for image in content["images"]:
        labels = np.full((image["height"], image["width"]), IGNORED, dtype=np.uint8)
        for one in content["annotations"]:
            if one["image_id"] == image["id"]:
                x, y, w, h = one["bbox"]
                labels[y : y + h, x : x + w] = one["category_id"] - 7
        write_labels(root / "labels" / f"{image['id']}.png", labels)
    for name in (TRAIN, VAL):
        register_semantic_dataset(name, root, root / "labels", classes=CLASSES, training=name == TRAIN)


def squares_config(folder: Path, **changes):
    """Four steps of two pictures at 32 pixels; changes by dotted key with __ for the dots."""
    cfg = get_denserc_config()
    cfg.merge_from_file(str(CONFIGS / "Base-CATSeg.yaml"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ENCODER.NAME, cfg.MODEL.ENCODER.RANDOM_INIT = "DenseRC-Miniature", True
    catseg = cfg.MODEL.CATSEG
    catseg.INPUT_SIZE, catseg.BLOCKS, catseg.SWIN_WINDOW = [32, 48], [1, 2], 3
    catseg.HIDDEN_DIM, catseg.NUM_HEADS, catseg.APPEARANCE_DIM, catseg.TEXT_DIM = 16, 2, 8, 8
    catseg.DECODER_DIMS, catseg.GUIDANCE_DIMS, catseg.PROJECTED_DIMS = [16, 16], [8, 8], [4, 4]
    catseg.CLASS_LIMIT = 4
    catseg.WINDOWS.SIDE, catseg.WINDOWS.CANVAS = 32, [48, 48]
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.CROP.SIZE, cfg.INPUT.MIN_SIZE_TEST = (40,), [40, 40], 40
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (TRAIN,), (VAL,)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER, cfg.SOLVER.CHECKPOINT_PERIOD = 2, 4, 2
    cfg.TEST.EVAL_PERIOD = 0
    cfg.SEED = 1
    cfg.OUTPUT_DIR = str(folder / "run")
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
    return cfg


class SumOfScores(DatasetEvaluator):
    """A number that changes with every bit of the predictions."""

    def __init__(self, name: str, folder: str):
        self.reset()

    def reset(self):
        self.found = {}

    def process(self, inputs, outputs):
        for one, output in zip(inputs, outputs, strict=True):
            self.found[one["image_id"]] = output["sem_seg"].double().sum().item()

    def evaluate(self):
        return {"sem_seg": {"mIoU": float(sum(self.found.values())), "images": float(len(self.found))}}
