"""Region classification (mAcc) of a dense encoder on a panoptic data set.

Protocol (CLIPSelf's): classes sorted by category id; the image's longest side resized to the input size and padded to
a square; boxes pooled by RoIAlign, masks by their mean at the feature map's resolution; cosine to the text embeddings;
things and stuff averaged apart, each over the classes that have regions; top-1 and top-5. The paper's Table 11 reports
things' boxes, thing masks and stuff masks.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm
from PIL import Image
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ...data.images.tolerance import UnreadableMonitor
from ...structures import ConfigurationError, DataError, PixelStatistics, TextEmbeddings, UnreadableImageError
from ...structures.boxes import grow_boxes
from .inputs import (
    PUBLISHED_LIMITS,
    Region,
    RegionLimits,
    crop_square,
    fit_square,
    mask_cells,
    picture_of,
    to_input,
)
from .pooling import AccuracyCounter, nearest_classes, pool_boxes, pool_masks
from .report import TASK, RegionReport


def measure_regions(
    dense_encoder: nn.Module,
    text: TextEmbeddings,
    entries: str | Iterable[dict[str, Any]],
    *,
    input_size: int,
    names: Sequence[str] | None = None,
    pixels: PixelStatistics | None = None,
    normalize: bool = True,
    limits: RegionLimits = PUBLISHED_LIMITS,
    mask_coverage: float = 0.0,
    crop_encoder: Callable[[torch.Tensor], torch.Tensor] | None = None,
    crop_size: int = 224,
    thing_crop_scale: float = 1.5,
    batch_size: int = 1,
    device: str | torch.device | None = None,
    progress: bool = True,
    fingerprint: str = "",
    max_unreadable: float = 0.01,
) -> RegionReport | None:
    """Region classification of a dense encoder.

    Under several processes each takes every n-th entry, none twice, and their counts are added.

    Args:
        dense_encoder: (B, 3, S, S) normalized images -> (B, E, h, w) raw dense features.
        text: Unit vectors of at least `names`.
        entries: The name of a registered panoptic set, or one dict per image: "image" (H, W, 3) uint8 RGB or
            "file_name", and "segments" as in RegionLimits.choose. A sequence is indexed, anything else iterated.
        input_size: S, a multiple of the encoder's patch size.
        names: C class names; a segment's label is an index into them (classes sorted by category id). By default
            `entries.classes`.
        pixels: Normalization; by default `dense_encoder.tower.pixels`.
        normalize: Pool an L2-normalized map (CLIPSelf); False pools the raw map (DeCLIP).
        limits: Segments that count.
        mask_coverage: See mask_cells.
        crop_encoder: (R, 3, crop_size, crop_size) -> (R, E); when given, the crops of all boxes are classified with it
            too: Accuracy of the teacher's class token.
        crop_size: Side of those crops, pixels.
        thing_crop_scale: A thing's crop is its box grown by this factor about its center, cut at the image's edges;
            stuff is cut by its box (1.5 is CLIPSelf's).
        batch_size: Images a forward.
        device: Device; by default that of the encoder's first parameter.
        progress: Show a bar.
        fingerprint: Fingerprint of the encoder's text tower, checked against the embeddings'.
        max_unreadable: Share of the images that may be unreadable; their regions count as missed.

    Returns:
        The report; None on ranks other than 0.

    Raises:
        DataError: Names without an embedding, labels out of range, too many unreadable images.
        FingerprintMismatchError: The embeddings belong to another encoder.
        ConfigurationError: No pixel statistics or no class names are known.
    """
    if pixels is None:
        if not hasattr(dense_encoder, "tower"):
            raise ConfigurationError("Give `pixels`: this dense encoder has no `.tower.pixels` to take them from.")
        pixels = dense_encoder.tower.pixels
    if isinstance(entries, str):
        entries = DatasetCatalog.get(entries)
    if names is None:
        if not hasattr(entries, "classes"):
            raise ConfigurationError("Give `names`: these entries have no `.classes` to take them from.")
        names = entries.classes
    text.require_fingerprint(fingerprint)
    if device is None:
        device = next((parameter.device for parameter in dense_encoder.parameters()), "cpu")
    device = torch.device(device)
    vectors = F.normalize(text.select(names).to(device).float(), dim=-1)  # (C, E)
    kinds = ["boxes", "masks"] + (["crops"] if crop_encoder is not None else [])
    counters = {kind: AccuracyCounter(len(names)) for kind in kinds}
    seen = 0
    total = len(entries) if hasattr(entries, "__len__") else sys.maxsize  # of a stream no share is known
    monitor = UnreadableMonitor(total=total, limit=max_unreadable)
    was_training = dense_encoder.training
    dense_encoder.eval()
    try:
        with torch.no_grad():  # not inference_mode: tables that the encoder caches here must serve training later
            for batch in _batches(_share(entries, progress), batch_size):
                seen += len(batch)
                images, regions, missed = _readable(batch, limits, monitor)
                for counter in counters.values():
                    counter.add(*_as_missed(missed, len(names)))
                if not any(regions):
                    continue
                boxes, masks = _pooled(
                    dense_encoder, images, regions, input_size, pixels, normalize, mask_coverage, device
                )
                found = {"boxes": boxes, "masks": masks}
                if crop_encoder is not None:
                    found["crops"] = _crop_features(
                        crop_encoder, images, regions, crop_size, thing_crop_scale, pixels, device
                    )
                flat = list(itertools.chain.from_iterable(regions))
                labels = torch.tensor([region.label for region in flat])
                is_thing = torch.tensor([region.is_thing for region in flat])
                for kind, features in found.items():
                    counters[kind].add(nearest_classes(features, vectors), labels, is_thing)
    finally:
        dense_encoder.train(was_training)
    monitor.join()
    counters, seen = _of_all_processes(counters, seen)
    if not comm.is_main_process():
        return None
    protocol = {
        "input_size": input_size,
        "pooled_map": "normalized" if normalize else "raw",
        "classes": len(names),
        "images": seen,
        "regions": int(counters["boxes"].counts[..., 0].sum()),
        "box_area": f"{limits.min_side:g}^2..{limits.max_side:g}^2",
        "segments_per_image": limits.max_segments,
        "mask_coverage": mask_coverage,
    }
    if monitor.reasons:
        protocol["unreadable_images"] = len(monitor.reasons)
        monitor.report()
    if crop_encoder is not None:
        protocol |= {"crop_size": crop_size, "thing_crop_scale": thing_crop_scale}
    return RegionReport(tuple(names), counters, protocol, getattr(entries, "is_thing", None))


def evaluate_regions(*args, **options) -> dict[str, dict[str, float]]:
    """The metrics of `measure_regions`, with the same arguments.

    Returns:
        {"region_classification": {"boxes_top1", "boxes_top5" (things), "thing_masks_top1", "thing_masks_top5",
        "stuff_boxes_top1", ..., "stuff_masks_top1", ...}}, with crops also "thing_crops_top1", "stuff_crops_top1", ...;
        percent, NaN where no region was found; {} on ranks other than 0.
    """
    report = measure_regions(*args, **options)
    return {} if report is None else {TASK: report.metrics}


def _share(entries: Iterable[dict], progress: bool) -> Iterator[dict]:
    """This process's entries: every n-th one, none padded, none twice."""
    rank, world = comm.get_rank(), comm.get_world_size()
    if hasattr(entries, "__getitem__") and hasattr(entries, "__len__"):
        indices = range(rank, len(entries), world)
        mine, total = (entries[i] for i in indices), len(indices)
    else:
        mine, total = itertools.islice(entries, rank, None, world), None
    return iter(tqdm(mine, total=total, desc="regions", unit="image", disable=not progress or rank != 0))


def _batches(entries: Iterator[dict], size: int) -> Iterator[list[dict]]:
    """Lists of up to `size` entries."""
    while batch := list(itertools.islice(entries, size)):
        yield batch


def _readable(
    batch: list[dict], limits: RegionLimits, monitor: UnreadableMonitor
) -> tuple[list[Image.Image], list[list[Region]], list[Region]]:
    """Pictures of a batch with their regions, and the regions of pictures that cannot be read."""
    images, regions, missed = [], [], []
    for entry in batch:
        chosen = limits.choose(entry["segments"])
        try:
            images.append(picture_of(entry))
        except UnreadableImageError as error:
            monitor.see_own([(error.path, str(error))])
            missed += chosen
        else:
            regions.append(chosen)
    return images, regions, missed


def _as_missed(regions: list[Region], classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Arguments of AccuracyCounter.add for regions R that no class was found for."""
    labels = torch.tensor([region.label for region in regions], dtype=torch.int64)
    is_thing = torch.tensor([region.is_thing for region in regions], dtype=torch.bool)
    return torch.full((len(regions), min(5, classes)), -1), labels, is_thing


def _pooled(
    dense_encoder: nn.Module,
    images: list,
    regions: list[list[Region]],
    side: int,
    pixels: PixelStatistics,
    normalize: bool,
    coverage: float,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Box features and mask features, both (R, E), image after image."""
    squares, scales = zip(*(fit_square(image, side) for image in images), strict=True)
    features = dense_encoder(to_input(squares, pixels, device)).float()  # (B, E, h, w)
    if normalize:
        features = F.normalize(features, dim=1)
    boxes, masks = [], []
    for image, found, scale in zip(images, regions, scales, strict=True):
        boxes.append(torch.tensor([region.box for region in found], dtype=torch.float32).reshape(-1, 4) * scale)
        for region in found:
            if region.mask.shape != (image.height, image.width):
                raise DataError(
                    f"A mask is {region.mask.shape} (h, w), its image {(image.height, image.width)}; they must agree."
                )
        stacked = np.stack([r.mask for r in found]) if found else np.zeros((0, image.height, image.width), bool)
        masks.append(mask_cells(stacked, scale, side, features.shape[-2:], coverage).to(device))
    return pool_boxes(features, [b.to(device) for b in boxes], side), pool_masks(features, masks)


def _crop_features(
    crop_encoder: Callable[[torch.Tensor], torch.Tensor],
    images: list,
    regions: list[list[Region]],
    side: int,
    thing_scale: float,
    pixels: PixelStatistics,
    device: torch.device,
) -> torch.Tensor:
    """(R, E) embeddings of the boxes' crops, image after image."""
    features = []
    for image, found in zip(images, regions, strict=True):
        if found:
            boxes = torch.tensor([r.box for r in found], dtype=torch.float64)
            things = torch.tensor([r.is_thing for r in found])
            boxes[things] = grow_boxes(boxes[things], thing_scale, (image.height, image.width))
            crops = [crop_square(image, box, side) for box in boxes.tolist()]
            features.append(crop_encoder(to_input(crops, pixels, device)).float())
    return torch.cat(features)


def _of_all_processes(counters: dict[str, AccuracyCounter], seen: int) -> tuple[dict[str, AccuracyCounter], int]:
    """The sums over the processes on rank 0; the argument itself on other ranks."""
    gathered = comm.gather((counters, seen), dst=0)
    if not comm.is_main_process():
        return counters, seen
    for part, _ in gathered[1:]:
        for kind, counter in gathered[0][0].items():
            counter.merge(part[kind])
    return gathered[0][0], sum(number for _, number in gathered)
