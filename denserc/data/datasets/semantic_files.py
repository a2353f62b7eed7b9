"""Label files of semantic sets, derived from only the official files; and from COCO panoptic or instance annotations.

`plan` lists what is read and written; `write_label_files` checks the number of files before it writes any.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...structures import BACKGROUND, ConfigurationError, DataError, atomic_path
from ...structures.files import read_annotation_file
from ...structures.records import short
from ..images.labels import read_labels, read_rgb_labels, write_labels
from ..images.opening import opened
from . import label_maps
from .entries import checked_content
from .image_lists import image_path, voc_list
from .panoptic import PanopticRegions
from .semantic_masks import MergedContext, decode_mask, read_label_map

logger = logging.getLogger(__name__)

_LONG_JOB = 200
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class LabelJob:
    """One label file to write.

    Args:
        out: File to write.
        labels: Reads and converts the official file: () -> (H, W) uint8 or uint16.
        image: (official image, file to write), where the image is written again with its labels' size.
    """

    out: Path
    labels: Callable[[], np.ndarray]
    image: tuple[Path, Path] | None = None


@dataclass(frozen=True)
class LabelCounts:
    """Result of a conversion.

    Args:
        files: Label files written.
        skipped: Files without any scored pixel that were left out.
        pixels: Pixels of each value, by value.
    """

    files: int
    skipped: int
    pixels: np.ndarray

    def present(self, classes: int) -> int:
        """Number of the first `classes` values that occur."""
        return int((self.pixels[:classes] > 0).sum())


def plan(name: str, root: Path, *, split: str = "val", json_file: Path | None = None) -> list[LabelJob]:
    """The label files of a set, with what they are read from.

    Args:
        name: A key of `PUBLISHED_COUNTS`.
        root: Root of all data.
        split: "val", or "train" for COCO-Stuff.
        json_file: PASCAL-Context's trainval_merged.json; None for the one in VOC2010.

    Raises:
        ConfigurationError: An unknown set, or a split that it does not have.
        DataError: The official files are absent.
    """
    if name not in _PLANS:
        raise ConfigurationError(f"Unknown set {name!r}; known are {', '.join(_PLANS)}.")
    if split != "val" and (name, split) not in PUBLISHED_COUNTS:
        raise ConfigurationError(f"{name} is prepared for validation only; got the split {split!r}.")
    if name.startswith("context"):
        return _PLANS[name](root, json_file or root / "VOCdevkit/VOC2010/trainval_merged.json")
    return _PLANS[name](root, split)


def write_label_files(
    jobs: Sequence[LabelJob], *, expected: int | None, ignore: int | None = None, workers: int = 1, title: str = ""
) -> LabelCounts:
    """Write label files; one that exists is written again. After an error none of them is left.

    Args:
        expected: Number of jobs, asserted before anything is written; None for any.
        ignore: Files that hold this value only are left out; None leaves none out.
        workers: Number of threads.

    Raises:
        DataError: Another number of files, two of the same name, an official file that cannot be read, or a value that
            the official files do not hold.
    """
    if expected is not None and len(jobs) != expected:
        raise DataError(
            f"{title or 'The set'} has {len(jobs):,} label files, but {expected:,} were expected. Is a part missing? "
            "--any-count takes what there is."
        )
    _require_own_names(jobs)
    pixels, skipped = np.zeros(65536, dtype=np.int64), 0
    stop = threading.Event()

    def run(job: LabelJob) -> np.ndarray | None:
        if stop.is_set():
            return None
        labels = job.labels()
        if job.image is not None:
            labels = _with_image(labels, *job.image)
        if ignore is not None and (labels == ignore).all():
            return None
        write_labels(job.out, labels)
        return np.bincount(labels.reshape(-1), minlength=65536)

    try:
        with ThreadPoolExecutor(workers) as pool:
            results = pool.map(run, jobs)
            try:
                for counts in tqdm(results, desc=title, total=len(jobs), disable=len(jobs) < _LONG_JOB):
                    if counts is None:
                        skipped += 1
                    else:
                        pixels += counts
            except BaseException:
                stop.set()  # the pool ends its waiting jobs before it closes
                raise
    except DataError:
        for job in jobs:
            job.out.unlink(missing_ok=True)
        raise
    return LabelCounts(len(jobs) - skipped, skipped, pixels)


def _require_own_names(jobs: Sequence[LabelJob]) -> None:
    """DataError if two jobs write the same file."""
    outs = Counter(job.out for job in jobs)
    twice = [str(out) for out, number in outs.items() if number > 1]
    if twice:
        raise DataError(
            f"{len(twice)} label files belong to several images, the first {twice[0]}. Give images names that differ "
            "without folder and suffix."
        )


def label_path(folder: Path, picture: str, suffix: str) -> Path:
    """The label file of a picture, of the same path without suffix.

    Raises:
        DataError: The path leads out of the folder.
    """
    name = PurePosixPath(picture)
    if not name.name or name.is_absolute() or ".." in name.parts:
        raise DataError(
            f"'file_name' is {short(picture)}, which leads out of the folder of the images. Write paths relative to it."
        )
    return folder / name.with_suffix(suffix)


def _files(folder: Path, pattern: str) -> list[Path]:
    found = sorted(folder.glob(pattern))
    if not found:
        raise DataError(f"{folder} has no {pattern}; datasets/README.md shows where the official files belong.")
    return found


def _stuffthingmaps(convert: Callable, out: str) -> Callable[[Path, str], list[LabelJob]]:
    def jobs(root: Path, split: str) -> list[LabelJob]:
        folder = root / "coco-stuff" / "annotations" / f"{split}2017"
        target = root / "coco-stuff" / out / folder.name
        return [LabelJob(target / path.name, lambda path=path: convert(read_labels(path)))
                for path in _files(folder, "*.png")]  # fmt: skip

    return jobs


def _ade20k_150(root: Path, split: str) -> list[LabelJob]:
    folder = root / "ADEChallengeData2016"
    return [LabelJob(folder / "annotations_detectron2" / "validation" / path.name,
                     lambda path=path: label_maps.ade20k_150(read_labels(path)))
            for path in _files(folder / "annotations" / "validation", "*.png")]  # fmt: skip


def _ade20k_847(root: Path, split: str) -> list[LabelJob]:
    folder = root / "ADE20K_2021_17_01"
    jobs = []
    for path in _files(folder / "images", "**/*_seg.png"):
        stem = path.name.removesuffix("_seg.png")
        if stem.split("_")[1] == split:  # ADE_val_00000001
            jobs.append(
                LabelJob(
                    folder / "annotations_detectron2" / "validation" / f"{stem}.tif",
                    lambda path=path: label_maps.ade20k_847(read_rgb_labels(path)),
                    (path.with_name(f"{stem}.jpg"), folder / "images_detectron2" / "validation" / f"{stem}.jpg"),
                )
            )
    return jobs


def _voc(convert: Callable, out: str) -> Callable[[Path, str], list[LabelJob]]:
    def jobs(root: Path, split: str) -> list[LabelJob]:
        folder = root / "VOCdevkit" / "VOC2012"
        # CAT-Seg reads SegmentationClassAug; of the validation images both hold the same.
        source = next(
            (folder / n for n in ("SegmentationClassAug", "SegmentationClass") if (folder / n).is_dir()), None
        )
        if source is None:
            raise DataError(f"{folder} has no SegmentationClass; unpack VOCtrainval_11-May-2012.tar beside VOC2012.")
        names = [name for _, name in voc_list(folder, "ImageSets/Segmentation/val.txt")]
        return [LabelJob(folder / out / "val" / f"{name}.png",
                         lambda name=name: convert(read_labels(source / f"{name}.png"))) for name in names]  # fmt: skip

    return jobs


def _context(convert: Callable, out: str) -> Callable[[Path, Path], list[LabelJob]]:
    def jobs(root: Path, json_file: Path) -> list[LabelJob]:
        merged = MergedContext(json_file)
        return [LabelJob(root / "VOCdevkit/VOC2010/annotations_detectron2" / out / f"{name}.png",
                         lambda name=name: convert(merged.labels(name))) for name in merged.names]  # fmt: skip

    return jobs


def _context_459(root: Path, json_file: Path) -> list[LabelJob]:
    folder = root / "VOCdevkit" / "VOC2010"
    return [LabelJob(folder / "annotations_detectron2" / "pc459_val" / f"{name}.tif",
                     lambda name=name: label_maps.context_459(read_label_map(folder / "trainval" / f"{name}.mat")))
            for name in MergedContext(json_file).names]  # fmt: skip


def _cityscapes(root: Path, split: str) -> list[LabelJob]:
    folder = root / "cityscapes"
    jobs = []
    for path in _files(folder / "gtFine" / split, "*/*_gtFine_labelIds.png"):
        stem = path.name.removesuffix("_gtFine_labelIds.png")
        out = folder / "annotations_detectron2" / split / path.parent.name / f"{stem}_leftImg8bit.png"
        jobs.append(LabelJob(out, lambda path=path: label_maps.cityscapes(read_labels(path))))
    return jobs


_PLANS: dict[str, Callable[..., list[LabelJob]]] = {
    "coco_stuff": _stuffthingmaps(label_maps.coco_stuff, "annotations_detectron2"),
    "coco_object": _stuffthingmaps(label_maps.coco_object, "annotations_detectron2_object"),
    "ade20k_150": _ade20k_150,
    "ade20k_847": _ade20k_847,
    "context_59": _context(label_maps.context_59, "pc59_val"),
    "context_60": _context(label_maps.context_60, "pc60_val"),
    "context_459": _context_459,
    "voc_20": _voc(label_maps.voc_20, "annotations_detectron2"),
    "voc_20_background": _voc(label_maps.voc_20_background, "annotations_detectron2_bg"),
    "voc_21": _voc(label_maps.voc_21, "annotations_detectron2_21"),
    "cityscapes": _cityscapes,
}

PUBLISHED_COUNTS = {
    ("coco_stuff", "val"): 5_000,
    ("coco_stuff", "train"): 118_287,
    ("coco_object", "val"): 5_000,
    ("ade20k_150", "val"): 2_000,
    ("ade20k_847", "val"): 2_000,
    ("context_59", "val"): 5_104,
    ("context_60", "val"): 5_104,
    ("context_459", "val"): 5_104,
    ("voc_20", "val"): 1_449,
    ("voc_20_background", "val"): 1_449,
    ("voc_21", "val"): 1_449,
    ("cityscapes", "val"): 500,
}

CLASSES = {
    "coco_stuff": 171, "coco_object": 81, "ade20k_150": 150, "ade20k_847": 847, "context_59": 59, "context_60": 60,
    "context_459": 459, "voc_20": 20, "voc_20_background": 21, "voc_21": 21, "cityscapes": 19,
}  # fmt: skip

# Pixels with this value only: the file is left out, as CAT-Seg's preparation does.
SKIPPED_IF_ONLY = {"voc_20": label_maps.IGNORED}


def _with_image(labels: np.ndarray, image: Path, out: Path, longest: int = 512) -> np.ndarray:
    """Write an image with a shorter side of at most `longest` pixels, and its labels in that size.

    OpenCV's bilinear for the image, nearest for the labels, as CAT-Seg's preparation.
    """
    import cv2

    with opened(image, "image") as picture:
        pixels = np.array(picture.convert("RGB"))
    h, w = labels.shape
    if pixels.shape[:2] != (h, w):
        raise DataError(f"{image} is {pixels.shape[:2]} (h, w), its label file {labels.shape}.")
    if min(h, w) > longest:
        scale = longest / min(h, w)
        new = (longest, int(w * scale)) if h < w else (int(h * scale), longest)
        pixels = cv2.resize(pixels, new[::-1], interpolation=cv2.INTER_LINEAR)
        labels = cv2.resize(labels, new[::-1], interpolation=cv2.INTER_NEAREST)
    with atomic_path(out) as partial:
        Image.fromarray(pixels).save(partial, quality=_JPEG_QUALITY)
    return labels


def panoptic_jobs(
    json_file: Path, png_root: Path, image_root: Path, out: Path, ignore: int
) -> tuple[list[LabelJob], tuple[str, ...]]:
    """Label files from COCO panoptic annotations, and their classes, by category id.

    Crowds are pixels of their class. What no segment covers is ignored.
    """
    regions = PanopticRegions(json_file, png_root, image_root)
    dtype = _narrowest(len(regions.classes), ignore)

    def labels(index: int) -> np.ndarray:
        entry = regions[index]
        result = np.full((entry["height"], entry["width"]), ignore, dtype=dtype)
        for segment in entry["segments"]:
            result[segment["mask"]] = segment["label"]
        return result

    stems = [os.path.splitext(os.path.basename(file))[0] for file in regions.file_names]
    suffix = ".png" if dtype is np.uint8 else ".tif"
    return [LabelJob(out / f"{stem}{suffix}", lambda i=i: labels(i)) for i, stem in enumerate(stems)], regions.classes


def instance_jobs(
    json_file: Path, out: Path, ignore: int, *, background: bool
) -> tuple[list[LabelJob], tuple[str, ...]]:
    """Label files from COCO or LVIS instance annotations, and their classes.

    Larger objects are painted first, so that smaller ones remain visible.

    Args:
        background: Pixels without an object are class 0, "background"; otherwise they are ignored.
    """
    content = read_annotation_file(json_file)
    if isinstance(content["annotations"], list):  # boxes are not used, and may be absent
        content["annotations"] = [
            {"bbox": [0, 0, 0, 0], **a} if isinstance(a, dict) else a for a in content["annotations"]
        ]
    content = checked_content(content, json_file, bare=False)
    categories = sorted(content["categories"], key=lambda category: category["id"])
    first = int(background)
    classes = ((BACKGROUND,) if background else ()) + tuple(category["name"] for category in categories)
    label_of = {category["id"]: first + label for label, category in enumerate(categories)}
    dtype = _narrowest(len(classes), ignore)
    objects: dict = {image["id"]: [] for image in content["images"]}
    bare = 0
    for annotation in content["annotations"]:
        bare += not annotation.get("segmentation")
        if annotation.get("segmentation") and annotation["image_id"] in objects:
            objects[annotation["image_id"]].append(annotation)
    if bare:
        logger.warning("%d of %d objects of %s have no mask.", bare, len(content["annotations"]), json_file)

    def labels(image: dict) -> np.ndarray:
        size = (image["height"], image["width"])
        result = np.full(size, 0 if background else ignore, dtype=dtype)
        masks = [(decode_mask(a["segmentation"], size), label_of[a["category_id"]]) for a in objects[image["id"]]]
        for mask, label in sorted(masks, key=lambda one: -int(one[0].sum())):
            result[mask] = label
        return result

    suffix = ".png" if dtype is np.uint8 else ".tif"
    return [
        LabelJob(label_path(out, str(image_path(image, Path())), suffix), lambda image=image: labels(image))
        for image in content["images"]
    ], classes


def _narrowest(classes: int, ignore: int) -> type:
    """uint8 or uint16, for class indices and the ignore label.

    Raises:
        ConfigurationError: The ignore label is one of the classes, or too large.
    """
    if ignore < classes or ignore > 65535:
        raise ConfigurationError(
            f"The ignore label must be within {classes}..65535, for {classes} classes; got {ignore}."
        )
    return np.uint8 if max(ignore, classes - 1) < 256 else np.uint16
