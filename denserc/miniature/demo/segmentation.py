"""Segmentation in the demo: CAT-Seg over each encoder, its dense features without training, and pictures of both."""

from pathlib import Path

import numpy as np

from ...evaluation import build_evaluator
from ...predictor import Predictor
from ...segmentation import engine as segmentation
from ...structures import cached_result
from ...structures.files import file_digest
from ...visualization import segmentation_page
from ..annotations import ALL_NAMES
from ..scenes import Scene
from ..world import SEEN_NAMES, Domain, rename
from .pictures import fresh_scenes
from .stages import CONTENDERS, Contender, Places, stage_config

SEGMENTER_NAME = "model_final.pth"
VAL, TRANSFER = "miniature_semantic_val", "miniature_semantic_transfer_val"
TASK = "sem_seg"


def segmenter_path(places: Places, seed: int, contender: Contender) -> Path:
    """Checkpoint of a contender's CAT-Seg."""
    return places.folder(seed, contender, "segmenter") / SEGMENTER_NAME


def make_segmenter(places: Places, contender: Contender, seed: int, overrides: list | None = None) -> dict:
    """Train CAT-Seg over a contender's encoder and evaluate it; evaluate the encoder's dense features without training.

    Args:
        overrides: Configuration keys and values of CAT-Seg's training.

    Returns:
        {"segmentation": metrics on the main domain, "segmentation_transfer": those on the other, "dense_segmentation":
        those of the dense features on the main domain, "seconds"}
    """
    folder = places.folder(seed, contender, "segmenter")
    encoder = places.encoder(seed, contender)
    source = ["MODEL.ENCODER.CHECKPOINT", str(encoder)]
    cfg = stage_config(
        places, "miniature/catseg.yaml", folder, seed, [*source, "DATASETS.TEST", (VAL, TRANSFER)], overrides
    )
    dense = stage_config(
        places,
        "miniature/dense_segmentation.yaml",
        places.folder(seed, contender, "dense_segmentation"),
        seed,
        [*source, "DATASETS.TEST", (VAL,)],
    )

    def compute() -> dict:
        trained = segmentation.run(cfg, evaluator_factory=build_evaluator)
        untrained = segmentation.run(dense, evaluator_factory=build_evaluator, eval_only=True)
        return {
            "segmentation": trained[VAL][TASK],
            "segmentation_transfer": trained[TRANSFER][TASK],
            "dense_segmentation": untrained[VAL][TASK],
        }

    return cached_result(folder / "result.json", f"{cfg.dump()} {dense.dump()} {file_digest(encoder)}", compute)


def true_labels(scene: Scene) -> np.ndarray:
    """(H, W) labels of a scene's pixels, as indices of ALL_NAMES."""
    return np.array([ALL_NAMES.index(name) for name in scene.names])[scene.segments]


def compare_segmenters(places: Places, seed: int, domain: Domain = Domain.MAIN, count: int = 4) -> np.ndarray:
    """A page of fresh scenes: picture, ground truth and every contender's CAT-Seg, with a legend.

    Names that CAT-Seg's training has not seen are marked; in the transfer domain by their meaning, as training has
    seen none of its names.
    """
    scenes = fresh_scenes(count, domain, things=5)
    names = [rename(name, domain) for name in ALL_NAMES]
    columns = {"ground truth": [true_labels(scene) for scene in scenes]}
    for contender in CONTENDERS:
        predictor = Predictor(segmenter_path(places, seed, contender), names, device="cpu")
        columns[contender.title] = [predictor(scene.image).labels.numpy() for scene in scenes]
    novel = [rename(name, domain) for name in ALL_NAMES if name not in SEEN_NAMES]
    return segmentation_page([scene.image for scene in scenes], columns, names, novel=novel)
