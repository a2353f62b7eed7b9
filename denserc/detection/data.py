"""Augmentations of the detector, and the mapper from a Detectron2 record to its input."""

import copy

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

from ..data.images.reading import read_rgb, to_tensor
from ..structures import ConfigurationError, DataError, choose
from .modeling.options import Resampling


class OpenCVResize(Transform):
    """Bilinear without antialiasing, as MMDetection F-ViT resizes; masks by nearest neighbor.

    Args:
        size: (h, w) before.
        new_size: (h, w) after.
    """

    def __init__(self, size: tuple[int, int], new_size: tuple[int, int]):
        super().__init__()
        self.size = size
        self.new_size = new_size

    def apply_image(self, img: np.ndarray, interp: str | None = None) -> np.ndarray:
        """(h, w) or (h, w, c) -> the new size."""
        cv2 = _import_cv2()
        return cv2.resize(img, self.new_size[::-1], interpolation=cv2.INTER_LINEAR)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """(n, 2) points (x, y) -> the same in the new image."""
        (h, w), (new_h, new_w) = self.size, self.new_size
        return coords * np.array([new_w / w, new_h / h])

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """(h, w) of labels or 0 and 1 -> the new size."""
        cv2 = _import_cv2()
        resized = cv2.resize(segmentation.astype(np.uint8), self.new_size[::-1], interpolation=cv2.INTER_NEAREST)
        return resized.astype(segmentation.dtype)


class FitSquare(T.Augmentation):
    """Scale an image so that its longer side is `side` times a random factor; keeps the aspect ratio.

    Args:
        side: Side of the square, pixels.
        jitter: Range of the factor; (1, 1) at test.
        resampling: See Resampling.
    """

    def __init__(self, side: int, jitter: tuple[float, float] = (1.0, 1.0), *, resampling: Resampling):
        super().__init__()
        low, high = jitter
        if side <= 0 or not 0 < low <= high:
            raise ConfigurationError(f"FitSquare needs a positive side and 0 < low <= high; got {side}, {jitter}.")
        self.side = side
        self.jitter = (float(low), float(high))
        self.resampling = resampling

    def get_transform(self, image: np.ndarray) -> Transform:
        """The resizing of this image, one draw of the random factor."""
        h, w = image.shape[:2]
        low, high = self.jitter
        factor = self.side * (low if low == high else np.random.uniform(low, high)) / max(h, w)
        new_h, new_w = max(int(h * factor + 0.5), 1), max(int(w * factor + 0.5), 1)
        if self.resampling is Resampling.OPENCV_BILINEAR:
            return OpenCVResize((h, w), (new_h, new_w))
        return T.ResizeTransform(h, w, new_h, new_w)


def training_augmentations(side: int, jitter: tuple[float, float], resampling: Resampling) -> list[T.Augmentation]:
    """Scale jitter, a random crop of at most `side` squared, a flip; the image is padded by the model, not here."""
    return [
        FitSquare(side, jitter, resampling=resampling),
        T.FixedSizeCrop((side, side), pad=False),
        T.RandomFlip(),
    ]


def evaluation_augmentations(side: int, resampling: Resampling) -> list[T.Augmentation]:
    """The longer side to `side`."""
    return [FitSquare(side, resampling=resampling)]


def _import_cv2():
    try:
        import cv2
    except ImportError as error:
        raise ConfigurationError(
            "INPUT.RESAMPLING 'opencv_bilinear' needs OpenCV: pip install opencv-python-headless, or set it to "
            "'pillow_bilinear'."
        ) from error
    return cv2


class RecordMapper:
    """One record of a Detectron2 data set -> what the model takes.

    Args:
        augmentations: Augmentations of image, boxes and masks.
        training: True to keep annotations; crowd annotations are never used.
        mask_format: "bitmask" or "polygon"; None: no masks. With "bitmask", objects without a segmentation may be mixed
            with others: they are boxes to learn from, and "gt_has_mask" marks them.
    """

    def __init__(self, augmentations: list[T.Augmentation], *, training: bool, mask_format: str | None = None):
        self.augmentations = T.AugmentationList(augmentations)
        self.training = training
        self.mask_format = mask_format

    def __call__(self, record: dict) -> dict:
        """Adds "image" (3, h, w) uint8 RGB and, in training, "instances"; keeps "height" and "width" of the file.

        Raises:
            DataError: The image cannot be read or has another size than its record.
        """
        record = copy.deepcopy(record)
        image = read_rgb(record["file_name"])
        h, w = image.shape[:2]
        if (record.get("height", h), record.get("width", w)) != (h, w):
            raise DataError(
                f"{record['file_name']} is {h} x {w} (h x w) upright, but its annotation file says "
                f"{record['height']} x {record['width']}: the file was exchanged, or its EXIF rotation was ignored."
            )
        record["height"], record["width"] = h, w
        image_in = T.AugInput(image)
        transforms = self.augmentations(image_in)
        record["image"] = to_tensor(image_in.image)
        annotations = record.pop("annotations", [])
        if self.training:
            record["instances"] = self._instances(annotations, transforms, image_in.image.shape[:2])
        return record

    def _instances(self, annotations: list[dict], transforms: T.TransformList, size: tuple[int, int]):
        kept, has_mask = [], []
        for annotation in annotations:
            if annotation.get("iscrowd", 0):
                continue
            if self.mask_format is None:
                annotation.pop("segmentation", None)
            # Detectron2's transforms work in place in the boxes' own type: whole numbers would be rounded down.
            annotation["bbox"] = [float(value) for value in annotation["bbox"]]
            kept.append(detection_utils.transform_instance_annotations(annotation, transforms, size))
            has_mask.append("segmentation" in annotation)
            if self.mask_format == "bitmask" and not has_mask[-1]:
                kept[-1]["segmentation"] = np.zeros(size, dtype=bool)
        instances = detection_utils.annotations_to_instances(kept, size, mask_format=self.mask_format or "polygon")
        if self.mask_format is not None and instances.has("gt_masks"):
            instances.gt_has_mask = torch.tensor(has_mask)
            # A crop may have cut an object: its box is that of what is left of it.
            visible = instances.gt_masks.get_bounding_boxes().tensor
            instances.gt_boxes.tensor[instances.gt_has_mask] = visible[instances.gt_has_mask]
        return detection_utils.filter_empty_instances(instances, by_mask=False, box_threshold=1e-2)


def have_masks(records: list[dict]) -> bool:
    """True if at least one object has a segmentation."""
    return any("segmentation" in a for record in records for a in record["annotations"] if not a.get("iscrowd", 0))


def training_mapper(cfg: CfgNode) -> RecordMapper:
    """Mapper with the augmentations of training that INPUT names."""
    resampling = choose(Resampling, cfg.INPUT.RESAMPLING, "INPUT.RESAMPLING")
    return RecordMapper(
        training_augmentations(cfg.INPUT.SIZE, cfg.INPUT.SCALE_JITTER, resampling),
        training=True,
        mask_format=cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
    )


def test_mapper(cfg: CfgNode) -> RecordMapper:
    """Mapper with the resizing of `configured_test_augmentations`."""
    return RecordMapper(configured_test_augmentations(cfg), training=False)


def configured_test_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Resizing to TEST.INPUT_SIZE, or to INPUT.SIZE where that is 0."""
    resampling = choose(Resampling, cfg.INPUT.RESAMPLING, "INPUT.RESAMPLING")
    return evaluation_augmentations(cfg.TEST.INPUT_SIZE or cfg.INPUT.SIZE, resampling)
