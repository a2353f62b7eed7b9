"""Named options for where Detectron2 and F-ViT on MMDetection differ."""

from enum import Enum


class LowQualityMatch(Enum):
    """Treatment of a ground-truth box that no candidate overlaps enough."""

    NONE = "none"
    OVERWRITE = "overwrite"
    """MMDetection F-ViT: its best candidates above a minimum IoU become positive, taken from another box if need be."""
    KEEP_BEST = "keep_best"
    """Detectron2: its best candidates become positive at any IoU, but for the box that they overlap most."""


class SizeClamp(Enum):
    """Limit of the predicted logarithmic change of a box's width and height."""

    TWO_SIDED = "two_sided"
    """MMDetection F-ViT: |dw|, |dh| <= log(1000 / 16)."""
    ABOVE = "above"
    """Detectron2: dw, dh <= log(1000 / 16); a box may shrink to nothing."""


class Padding(Enum):
    """Common size of the images of a batch; zeros are padded at the bottom and the right."""

    SQUARE = "square"
    """MMDetection F-ViT: a square of at least INPUT.SIZE."""
    DIVISIBLE = "divisible"
    """The smallest size that holds all images and that the patch size divides."""


class Resampling(Enum):
    """Bilinear resizing of images."""

    OPENCV_BILINEAR = "opencv_bilinear"
    """MMDetection F-ViT: bilinear without antialiasing."""
    PILLOW_BILINEAR = "pillow_bilinear"
    """Detectron2: Pillow's bilinear, which antialiases when it shrinks."""


class Suppression(Enum):
    """Detections that suppress each other where they overlap."""

    PER_CLASS = "per_class"
    """MMDetection F-ViT: only those of the same class; one object may be found as several classes."""
    CLASS_AGNOSTIC = "class_agnostic"
    """All: of overlapping detections the best-scored one stays, whatever its class."""
