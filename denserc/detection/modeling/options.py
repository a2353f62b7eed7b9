"""Named options: where Detectron2 and the original (MMDetection) differ, a name says whose convention is used."""

from enum import Enum


class LowQualityMatch(Enum):
    """What happens to a ground-truth box that no candidate overlaps enough."""

    NONE = "none"
    OVERWRITE = "overwrite"
    """The original: its best candidates are given to it, taken from another box if need be, from a least IoU on."""
    KEEP_BEST = "keep_best"
    """Detectron2: its best candidates become positive at any IoU, but for the box that they overlap most."""


class RPNNormaliser(Enum):
    """What the sums of the RPN's losses are divided by."""

    SAMPLED = "sampled"
    """The original: the number of sampled anchors of the batch."""
    FIXED = "fixed"
    """Detectron2: anchors per image times images, however few were sampled."""


class ClassLossNormaliser(Enum):
    """What the weighted cross-entropy is divided by."""

    SAMPLES = "samples"
    """The original: the number of samples."""
    WEIGHTS = "weights"
    """PyTorch: the sum of the samples' class weights."""


class SizeClamp(Enum):
    """How the predicted logarithmic change of a box's width and height is limited."""

    TWO_SIDED = "two_sided"
    """The original: |dw|, |dh| <= log(1000 / 16)."""
    ABOVE = "above"
    """Detectron2: dw, dh <= log(1000 / 16); a box may shrink to nothing."""


class Padding(Enum):
    """How the images of a batch are brought to one size; always at the bottom and the right, with zeros."""

    SQUARE = "square"
    """The original: a square of at least INPUT.SIZE."""
    DIVISIBLE = "divisible"
    """The smallest size that holds all images and that the patch size divides."""


class Resampling(Enum):
    """How images are resized."""

    OPENCV_BILINEAR = "opencv_bilinear"
    """The original: bilinear without antialiasing."""
    PILLOW_BILINEAR = "pillow_bilinear"
    """Detectron2: Pillow's bilinear, which antialiases when it shrinks."""


class Suppression(Enum):
    """Which detections suppress each other where they overlap."""

    PER_CLASS = "per_class"
    """The original: those of the same class alone; one object may be found as several classes."""
    CLASS_AGNOSTIC = "class_agnostic"
    """All: of overlapping detections the best-scored one stays, whatever its class."""
