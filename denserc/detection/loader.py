"""Batches for training, in an order that a resumed run continues; images for test."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, detection_utils
from detectron2.data import transforms as T
from detectron2.data.build import trivial_batch_collator
from detectron2.data.samplers import InferenceSampler
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.images import read_rgb
from ..structures import ConfigurationError, DataError, choose
from .augment import evaluation_augmentations, training_augmentations
from .options import Resampling


class RecordMapper:
    """One record of a Detectron2 data set -> what the model takes.

    Args:
        augmentations: applied to image, boxes and masks.
        training: whether annotations are wanted; crowd annotations are never used.
        mask_format: "bitmask" or "polygon"; None: no masks. With "bitmask", objects without a segmentation may stand
            beside others: they are boxes to learn from, and "gt_has_mask" says so.
    """

    def __init__(self, augmentations: list[T.Augmentation], *, training: bool, mask_format: str | None = None):
        self.augmentations = T.AugmentationList(augmentations)
        self.training = training
        self.mask_format = mask_format

    def __call__(self, record: dict) -> dict:
        """Adds "image" (3, h, w) uint8 RGB and, in training, "instances"; keeps "height" and "width" of the file.

        Raises:
            DataError: the image cannot be read or has another size than its record says.
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
        record["image"] = torch.from_numpy(np.ascontiguousarray(image_in.image.transpose(2, 0, 1)))
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


class TrainingStream(Dataset):
    """An endless stream of mapped records: item p is the p-th image that training sees.

    Every round over the records has its own permutation, and every item its own seed, so an item depends on (seed, p)
    alone: not on the number of workers, nor on where a run was interrupted.

    With fixed views a record's item is one of `views` that depend on (seed, record, number of the view) alone; they
    take turns from round to round.

    Args:
        records: of the training sets.
        mapper: record -> item.
        seed: of the order and of the augmentation.
        views: of a record; 0: every item is drawn anew.
    """

    def __init__(self, records: list[dict], mapper: Callable[[dict], dict], *, seed: int, views: int = 0):
        if not records:
            raise DataError("The training sets hold no image with an annotation to learn from.")
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.views = views

    def __getitem__(self, position: int) -> dict:
        round_, offset = divmod(position, len(self.records))
        order = np.random.default_rng([self.seed, round_]).permutation(len(self.records))
        draw = [self.seed, 3, order[offset], round_ % self.views] if self.views else [self.seed, 1, position]
        before = np.random.get_state()
        np.random.seed(np.random.default_rng(draw).integers(2**32))
        try:
            return self.mapper(self.records[order[offset]])
        finally:
            np.random.set_state(before)


class PositionSampler(Sampler):
    """Positions of the stream for this process, from a given batch on, without end.

    Args:
        start: batches that were trained on before.
        total_batch: images of one step over all processes.
    """

    def __init__(self, *, start: int, total_batch: int):
        self.first = start * total_batch + comm.get_rank()

    def __iter__(self) -> Iterator[int]:
        position = self.first
        while True:
            yield position
            position += comm.get_world_size()


def training_records(cfg: CfgNode) -> list[dict]:
    """The records of DATASETS.TRAIN.

    Raises:
        ConfigurationError: DATASETS.TRAIN is empty.
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigurationError("DATASETS.TRAIN is empty: there is nothing to train on.")
    records = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
    if cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS:
        records = [r for r in records if any(not a.get("iscrowd", 0) for a in r["annotations"])]
    return records


def have_masks(records: list[dict]) -> bool:
    """Whether at least one object has a segmentation."""
    return any("segmentation" in a for record in records for a in record["annotations"] if not a.get("iscrowd", 0))


def build_train_loader(cfg: CfgNode, start: int, seed: int, records: list[dict] | None = None) -> DataLoader:
    """Endless batches, beginning with those of step number `start`; SOLVER.ACCUMULATE of them are a process's step.

    Args:
        records: of the training sets; None: read from DATASETS.TRAIN.

    Raises:
        ConfigurationError: SOLVER.IMS_PER_BATCH does not divide by processes and SOLVER.ACCUMULATE.
        DataError: no images.
    """
    total, processes, accumulate = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size(), cfg.SOLVER.ACCUMULATE
    if accumulate < 1 or total < 1 or total % (processes * accumulate):
        raise ConfigurationError(
            f"SOLVER.IMS_PER_BATCH = {total} cannot be divided among {processes} processes times SOLVER.ACCUMULATE = "
            f"{accumulate}."
        )
    if records is None:
        records = training_records(cfg)
    resampling = choose(Resampling, cfg.INPUT.RESAMPLING, "INPUT.RESAMPLING")
    mapper = RecordMapper(
        training_augmentations(cfg.INPUT.SIZE, cfg.INPUT.SCALE_JITTER, resampling),
        training=True,
        mask_format=cfg.INPUT.MASK_FORMAT if cfg.MODEL.MASK_ON else None,
    )
    return DataLoader(
        TrainingStream(records, mapper, seed=seed, views=cfg.INPUT.FIXED_VIEWS),
        batch_size=total // (processes * accumulate),
        sampler=PositionSampler(start=start, total_batch=total),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
        # Starting an iterator draws from this generator; drawing from PyTorch's own would shift the first step's
        # randomness, and a resumed run has another first step.
        generator=torch.Generator(),
    )


def build_test_loader(cfg: CfgNode, name: str, finished: frozenset[int] = frozenset()) -> DataLoader:
    """Every image of a set once, shared between the processes, but those whose ids are `finished`."""
    records = [record for record in DatasetCatalog.get(name) if record["image_id"] not in finished]
    resampling = choose(Resampling, cfg.INPUT.RESAMPLING, "INPUT.RESAMPLING")
    mapper = RecordMapper(evaluation_augmentations(cfg.TEST.INPUT_SIZE or cfg.INPUT.SIZE, resampling), training=False)
    return DataLoader(
        _Mapped(records, mapper),
        batch_size=cfg.TEST.IMS_PER_PROCESS,
        sampler=InferenceSampler(len(records)) if records else (),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        collate_fn=trivial_batch_collator,
    )


class _Mapped(Dataset):
    def __init__(self, records: list[dict], mapper: Callable[[dict], dict]):
        self.records = records
        self.mapper = mapper

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        return self.mapper(self.records[index])
