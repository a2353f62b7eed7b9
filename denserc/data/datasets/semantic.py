"""Semantic segmentation sets: registration by Detectron2's convention, and the published sets.

A record has "file_name", "sem_seg_file_name", "image_id" (the label file's path below its folder, without suffix),
"height" and "width" (of the label file). Metadata: stuff_classes, ignore_label, evaluator_type "sem_seg", image_root,
sem_seg_root, base_classes, novel_classes, training; and, as a model may be asked with other names than are scored,

- text_classes, the names that a model distinguishes, never "background";
- prediction_labels, the scored class of each label that a model gives: of its T names, then, where the set has a
  background, of T, a model's answer "none of them";
- training_classes, of training sets: the text_classes that are not novel, with which a model learns. Their labels are
  those of the mapped label maps. CAT-Seg's loss makes each class of the vocabulary a negative of all pixels that do not
  have its label. A novel class is never labeled in training, so its name would be learned as a negative everywhere,
  also on the pixels that show it. The published COCO-Stuff has no novel classes: all 171 names are learned;
- benchmark, the key of the protocols of `denserc.segmentation.dense`, or "".
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...structures import BACKGROUND, DataError, Vocabulary
from ..images.labels import label_size
from ..vocabulary.published import vocabulary
from .catalog import register
from .image_lists import IMAGE_SUFFIXES

logger = logging.getLogger(__name__)

LABEL_SUFFIXES = frozenset({".png", ".tif", ".tiff"})
EVALUATOR = "sem_seg"


@dataclass(frozen=True)
class SemanticSet:
    """A published set, below the root of all data.

    Args:
        name: Registered name of the set.
        images: Folders that may hold the images; the first that exists is used.
        labels: Folder of the label files.
        vocabulary: Published vocabulary that a model is asked with.
        count: Number of label files.
        background: Place of "background" among the scored classes: "", "first", or "rest", which is after VOC's 20
            and represents every name beyond them.
        ignore_label: Value of pixels that are not scored.
        benchmark: See the module.
        training: The set is trained on.
        may_be_fewer: Files without any scored pixel are left out when the set is prepared.
    """

    name: str
    images: tuple[str, ...]
    labels: str
    vocabulary: str
    count: int
    background: str = ""
    ignore_label: int = 255
    benchmark: str = ""
    training: bool = False
    may_be_fewer: bool = False


_COCO = "coco-stuff"
_VOC10, _VOC12 = "VOCdevkit/VOC2010", "VOCdevkit/VOC2012"
_CITYSCAPES = "cityscapes"
_VAL_IMAGES = (f"{_COCO}/images/val2017", "coco/val2017")
_TRAIN_IMAGES = (f"{_COCO}/images/train2017", "coco/train2017")

# The names of CAT-Seg's registrations, and four more sets with similar names.
SEMANTIC_SETS = (
    SemanticSet(
        "coco_2017_train_stuff_all_sem_seg", _TRAIN_IMAGES, f"{_COCO}/annotations_detectron2/train2017", "coco_stuff",
        118_287, training=True,
    ),
    SemanticSet(
        "coco_2017_test_stuff_all_sem_seg", _VAL_IMAGES, f"{_COCO}/annotations_detectron2/val2017", "coco_stuff",
        5_000, benchmark="coco_stuff",
    ),
    SemanticSet(
        "coco_2017_test_object_sem_seg", _VAL_IMAGES, f"{_COCO}/annotations_detectron2_object/val2017", "coco",
        5_000, background="first", benchmark="coco_object",
    ),
    SemanticSet(
        "ade20k_150_test_sem_seg", ("ADEChallengeData2016/images/validation",),
        "ADEChallengeData2016/annotations_detectron2/validation", "ade20k_150", 2_000, benchmark="ade20k",
    ),
    SemanticSet(
        "ade20k_full_sem_seg_freq_val_all", ("ADE20K_2021_17_01/images_detectron2/validation",),
        "ADE20K_2021_17_01/annotations_detectron2/validation", "ade20k_847", 2_000, ignore_label=65535,
    ),
    SemanticSet(
        "context_59_test_sem_seg", (f"{_VOC10}/JPEGImages",), f"{_VOC10}/annotations_detectron2/pc59_val",
        "pascal_context_59", 5_104, benchmark="context59",
    ),
    SemanticSet(
        "context_60_test_sem_seg", (f"{_VOC10}/JPEGImages",), f"{_VOC10}/annotations_detectron2/pc60_val",
        "pascal_context_59", 5_104, background="first", benchmark="context60",
    ),
    SemanticSet(
        "context_459_test_sem_seg", (f"{_VOC10}/JPEGImages",), f"{_VOC10}/annotations_detectron2/pc459_val",
        "pascal_context_459", 5_104, ignore_label=459,
    ),
    SemanticSet(
        "voc_2012_test_sem_seg", (f"{_VOC12}/JPEGImages",), f"{_VOC12}/annotations_detectron2/val", "voc_joined",
        1_449, benchmark="voc20", may_be_fewer=True,
    ),
    SemanticSet(
        "voc_2012_test_background_sem_seg", (f"{_VOC12}/JPEGImages",), f"{_VOC12}/annotations_detectron2_bg/val",
        "voc_background", 1_449, background="rest",
    ),
    SemanticSet(
        "voc_2012_test_21_sem_seg", (f"{_VOC12}/JPEGImages",), f"{_VOC12}/annotations_detectron2_21/val",
        "voc_joined", 1_449, background="first", benchmark="voc21",
    ),
    SemanticSet(
        "cityscapes_19_test_sem_seg", (f"{_CITYSCAPES}/leftImg8bit/val",),
        f"{_CITYSCAPES}/annotations_detectron2/val", "cityscapes", 500, benchmark="cityscapes",
    ),
)  # fmt: skip


def register_semantic_sets(root: str | Path) -> None:
    """Register every published set below `root`; nothing is read until a set is used."""
    root = Path(root)
    for one in SEMANTIC_SETS:
        names = vocabulary(one.vocabulary).names
        options: dict = {"classes": names}
        if one.background == "first":
            options["classes"] = (BACKGROUND, *names)
        elif one.background == "rest":
            known = len(vocabulary("voc_joined"))
            options["classes"] = (*names[:known], BACKGROUND)
            options["text_classes"] = names
            options["prediction_labels"] = [min(label, known) for label in range(len(names))]
        register_semantic_dataset(
            one.name,
            [root / folder for folder in one.images],
            root / one.labels,
            ignore_label=one.ignore_label,
            training=one.training,
            benchmark=one.benchmark,
            **options,
        )


def register_semantic_dataset(
    name: str,
    image_roots: str | Path | Sequence[str | Path],
    label_root: str | Path,
    *,
    classes: Sequence[str],
    novel: Sequence[str] = (),
    text_classes: Sequence[str] | None = None,
    prediction_labels: Sequence[int] | None = None,
    ignore_label: int = 255,
    training: bool = False,
    benchmark: str = "",
) -> None:
    """Register a folder of images with a folder of label files; a set of the same name is replaced.

    An image belongs to the label file of the same path below its folder, without suffix.

    Args:
        image_roots: Folder of the images, or several of which the first that exists is used.
        label_root: Folder of the label files, PNG or TIFF with one channel of 8 or 16 bits.
        classes: Class k is value k of the label files. One of them may be "background".
        novel: Names that training has not used: the "unseen" ones of the evaluation.
        text_classes, prediction_labels: See the module; None derives them from `classes`.
        ignore_label: Value of pixels that are not scored.
        training: Pixels and names of novel classes are never learned: records get a "sem_seg_table" (`learned_labels`)
            whose labels are indices of "training_classes".

    Raises:
        DataError: Names that are not unique or empty; a novel name that is not a class; labels for another number of
            predictions than the names have; a training set whose classes are all novel.
    """
    Vocabulary(classes, novel=novel)
    background = [i for i, one in enumerate(classes) if one == BACKGROUND]
    if text_classes is None:
        text_classes = [one for one in classes if one != BACKGROUND]
        prediction_labels = [i for i, one in enumerate(classes) if one != BACKGROUND] + background
    asked = Vocabulary(text_classes, novel=[one for one in novel if one != BACKGROUND])
    if prediction_labels is None or len(prediction_labels) not in (len(asked), len(asked) + 1):
        raise DataError(
            f"{name}: prediction_labels must give a class for each of the {len(asked)} text_classes, and may give one "
            f"for background; got {prediction_labels}."
        )
    outside = [label for label in prediction_labels if not 0 <= label < len(classes)]
    if outside:
        raise DataError(f"{name}: prediction_labels must be within 0..{len(classes) - 1}; got {outside[:10]}.")
    roots = [Path(image_roots)] if isinstance(image_roots, (str, Path)) else [Path(root) for root in image_roots]

    def image_root() -> Path:
        return next((root for root in roots if root.is_dir()), roots[0])

    learned, training_classes = {}, {}
    if training:
        kept = [label for label, one in enumerate(asked.names) if one not in asked.novel]
        if not kept:
            raise DataError(f"{name} has nothing to learn: all of its {len(asked)} classes are novel.")
        training_classes = {"training_classes": [asked.names[label] for label in kept]}
        if novel or background:
            label_of = {prediction_labels[label]: i for i, label in enumerate(kept)}
            table = [label_of.get(k, -1) for k in range(len(classes))]
            learned = {"sem_seg_table": np.array([*table, -1], dtype=np.int32)}
    register(
        name,
        lambda: [{**record, **learned} for record in semantic_records(image_root(), label_root)],
        stuff_classes=list(classes),
        base_classes=[one for one in classes if one not in set(novel)],
        novel_classes=list(novel),
        text_classes=list(asked.names),
        **training_classes,
        prediction_labels=list(prediction_labels),
        ignore_label=ignore_label,
        image_root=str(image_root()),
        sem_seg_root=str(label_root),
        evaluator_type=EVALUATOR,
        training=training,
        benchmark=benchmark,
    )


def learned_labels(labels: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Values of a label file -> labels that a model learns, -1 for background, novel classes and ignored pixels.

    Args:
        labels: (H, W) label map.
        table: "sem_seg_table" of a training record: the label of each class, and -1 for all larger values.
    """
    return table[np.minimum(labels, len(table) - 1)]


def semantic_records(image_root: str | Path, label_root: str | Path) -> list[dict]:
    """Detectron2's records of all label files that have an image, by path; the number of others is logged.

    Raises:
        DataError: A folder is absent, or no label file has an image.
    """
    images, labels = files_by_stem(image_root, IMAGE_SUFFIXES), files_by_stem(label_root, LABEL_SUFFIXES)
    for folder, files in ((image_root, images), (label_root, labels)):
        if not files:
            what = "label files (PNG or TIFF)" if folder is label_root else "images"
            raise DataError(
                f"{folder} has no {what}. datasets/README.md shows where files belong and which script prepares them."
            )
    records = []
    for stem, label in labels.items():
        if stem in images:
            height, width = label_size(label)
            records.append(
                {
                    "file_name": images[stem],
                    "sem_seg_file_name": label,
                    "image_id": stem,
                    "height": height,
                    "width": width,
                }
            )
    if not records:
        some_image, some_label = next(iter(images)), next(iter(labels))
        raise DataError(
            f"No label file of {label_root} ({some_label}, ...) has an image of the same name in {image_root} "
            f"({some_image}, ...). Name label files as their images, but for the suffix."
        )
    if len(records) < len(labels):
        logger.warning("%d of %d label files in %s have no image.", len(labels) - len(records), len(labels), label_root)
    return records


def files_by_stem(folder: str | Path, suffixes: frozenset[str]) -> dict[str, str]:
    """{path below the folder, without suffix, "/" between its parts: path}, sorted; empty where there is no folder.

    Of two files that differ by their suffix the alphabetically first is taken.
    """
    found: dict[str, str] = {}
    for parent, _, names in os.walk(folder, followlinks=True):
        below = os.path.relpath(parent, folder)
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in suffixes and not name.startswith("."):
                key = stem if below == "." else f"{below}/{stem}".replace(os.sep, "/")
                found.setdefault(key, os.path.join(parent, name))
    return dict(sorted(found.items()))
