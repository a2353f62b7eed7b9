"""CAT-Seg's data pipeline: augmentations, and the mapper from a Detectron2 record to the model's input."""

import copy
import random

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform

from ..data.datasets.semantic import learned_labels
from ..data.images.labels import read_labels
from ..data.images.reading import read_rgb
from ..structures import ConfigurationError, DataError

IGNORED = -1
"""Label of padding and of pixels that the data set ignores; the model ignores every label outside of its classes."""
PADDING = 128  # gray value


class ColorJitter(T.Augmentation):
    """Detectron2's SSD colors, drawn from NumPy's generator as every augmentation of a training stream."""

    def get_transform(self, image: np.ndarray) -> "SeededColors":
        """The colors of one draw."""
        return SeededColors(int(np.random.randint(2**31)))


class SeededColors(ColorAugSSDTransform):
    """ColorAugSSDTransform with a seed of its own instead of Python's global `random`.

    Args:
        seed: Seed of the random draws.
    """

    def __init__(self, seed: int):
        super().__init__(img_format="RGB")
        self.seed = seed

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """(h, w, 3) uint8 RGB -> the same in other colors."""
        before = random.getstate()
        random.seed(self.seed)
        try:
            return super().apply_image(img, interp)
        finally:
            random.setstate(before)


def training_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Resizing, crop, colors and flip, in CAT-Seg's order, configured by INPUT.

    Raises:
        ConfigurationError: INPUT.RANDOM_FLIP is unknown, INPUT.MIN_SIZE_TRAIN is empty, or INPUT.CROP.SIZE is not of
            INPUT.CROP.TYPE.
    """
    settings = cfg.INPUT
    if not settings.MIN_SIZE_TRAIN:
        raise ConfigurationError("INPUT.MIN_SIZE_TRAIN is empty; expected is at least one length of the shorter side.")
    crop = settings.CROP.SIZE
    whole = settings.CROP.TYPE.startswith("absolute")
    if settings.CROP.ENABLED and any(side != int(side) if whole else side > 1 for side in crop):
        raise ConfigurationError(
            f"INPUT.CROP.SIZE is {crop} and INPUT.CROP.TYPE {settings.CROP.TYPE!r}; expected are "
            f"{'whole numbers of pixels' if whole else 'shares of the picture, at most 1'}."
        )
    crop = [int(side) for side in crop] if whole else crop
    augmentations: list[T.Augmentation] = [
        T.ResizeShortestEdge(settings.MIN_SIZE_TRAIN, settings.MAX_SIZE_TRAIN, settings.MIN_SIZE_TRAIN_SAMPLING)
    ]
    if settings.CROP.ENABLED:
        area = settings.CROP.SINGLE_CATEGORY_MAX_AREA
        augmentations.append(
            T.RandomCrop_CategoryAreaConstraint(settings.CROP.TYPE, crop, area, IGNORED)
            if area < 1
            else T.RandomCrop(settings.CROP.TYPE, crop)
        )
    if settings.COLOR_AUG_SSD:
        augmentations.append(ColorJitter())
    flips = {"none": [], "horizontal": [T.RandomFlip()], "vertical": [T.RandomFlip(horizontal=False, vertical=True)]}
    if settings.RANDOM_FLIP not in flips:
        raise ConfigurationError(f"INPUT.RANDOM_FLIP is {settings.RANDOM_FLIP!r}; legal are {', '.join(flips)}.")
    return augmentations + flips[settings.RANDOM_FLIP]


class SemanticMapper:
    """One record of a semantic set -> an input of the model.

    Args:
        augmentations: Augmentations of image and labels.
        training: True to read labels.
        ignore_label: Value of the label files that names no class; None for none.
        padded_size: (h, w) that image and labels are padded to at the right and the bottom; None for no padding.
    """

    def __init__(
        self,
        augmentations: list[T.Augmentation],
        *,
        training: bool,
        ignore_label: int | None = None,
        padded_size: tuple[int, int] | None = None,
    ):
        self.augmentations = T.AugmentationList(augmentations)
        self.training = training
        self.ignore_label = ignore_label
        self.padded_size = padded_size

    def __call__(self, record: dict) -> dict:
        """Add "image" (3, h, w) uint8 RGB and in training "sem_seg" (h, w) int64; keep the file's "height" and "width".

        Raises:
            DataError: A file cannot be read, or image and labels have different sizes.
        """
        record = copy.deepcopy(record)
        image = read_rgb(record["file_name"])
        record["height"], record["width"] = image.shape[:2]
        labels = None
        if self.training:
            labels = read_labels(record["sem_seg_file_name"])
            if labels.shape != image.shape[:2]:
                raise DataError(
                    f"{record['file_name']} is {image.shape[:2]} (h, w), its labels {record['sem_seg_file_name']} are "
                    f"{labels.shape}."
                )
            if "sem_seg_table" in record:
                labels = learned_labels(labels, record.pop("sem_seg_table"))
            labels = labels.astype(np.float64)  # Detectron2 resizes this type, of any range, by nearest neighbor
            if self.ignore_label is not None:
                labels[labels == self.ignore_label] = IGNORED
        given = T.AugInput(image, sem_seg=labels)
        self.augmentations(given)
        record["image"] = torch.from_numpy(np.ascontiguousarray(given.image.transpose(2, 0, 1)))
        if labels is not None:
            record["sem_seg"] = torch.from_numpy(np.ascontiguousarray(given.sem_seg)).long()
        if self.padded_size is not None:
            self._pad(record)
        return record

    def _pad(self, record: dict) -> None:
        h, w = record["image"].shape[-2:]
        margin = (0, max(0, self.padded_size[1] - w), 0, max(0, self.padded_size[0] - h))
        record["image"] = torch.nn.functional.pad(record["image"], margin, value=PADDING)
        if "sem_seg" in record:
            record["sem_seg"] = torch.nn.functional.pad(record["sem_seg"], margin, value=IGNORED)


def training_mapper(cfg: CfgNode) -> SemanticMapper:
    """Mapper with the augmentations of training; pads to an absolute crop's size.

    Raises:
        ConfigurationError: The training sets ignore different labels.
    """
    ignored = {name: MetadataCatalog.get(name).get("ignore_label") for name in cfg.DATASETS.TRAIN}
    if len(set(ignored.values())) > 1:
        raise ConfigurationError(f"The sets of DATASETS.TRAIN have different values of ignored pixels: {ignored}.")
    crop = cfg.INPUT.CROP
    padded = tuple(int(side) for side in crop.SIZE) if crop.ENABLED and crop.TYPE == "absolute" else None
    ignore_label = next(iter(ignored.values()), None)
    return SemanticMapper(training_augmentations(cfg), training=True, ignore_label=ignore_label, padded_size=padded)


def test_mapper(cfg: CfgNode) -> SemanticMapper:
    """Build a mapper that only resizes, by INPUT.MIN_SIZE_TEST and .MAX_SIZE_TEST; the evaluator reads the labels."""
    return SemanticMapper(configured_test_augmentations(cfg), training=False)


def configured_test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Build the resizing by INPUT.MIN_SIZE_TEST and .MAX_SIZE_TEST."""
    return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)]
