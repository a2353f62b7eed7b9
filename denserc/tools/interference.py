"""Section 6 of the paper's supplement, measured (`denserc lab interference`).

How much of each construction's features comes from unrelated patches. Definitions: `denserc.analysis.interference` and
`.alignment`. Means are over the patches of a region, then over all regions.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from ..analysis.alignment import Alignment, alignment
from ..analysis.interference import Parts, Unrelated, decompose, unrelated_patches
from ..analysis.interference_report import summarize
from ..construction import CONSTRUCTIONS, Construction, DenseEncoder, load_checkpoint
from ..encoders import ImageTower, build_clip, has_packaged_weights
from ..evaluation.regions.inputs import (
    PUBLISHED_LIMITS,
    Region,
    crop_square,
    fit_square,
    mask_cells,
    picture_of,
    to_input,
)
from ..structures import ConfigurationError, DataError
from .region_entries import segments_of


def measure(
    encoders: Mapping[str, DenseEncoder],
    teacher: ImageTower,
    entries: Sequence[Mapping],
    *,
    input_size: int,
    unrelated: Unrelated | str = Unrelated.OUTSIDE_REGION,
    kinds: Sequence[bool] = (True, False),
) -> dict[str, dict[str, float]]:
    """The terms of Eq. 17-19 of every construction.

    A patch is measured for each region that covers more than half of it.

    Args:
        encoders: Name -> encoder, all over the same tower.
        teacher: Tower whose class token of a region's crop is c_r.
        entries: Panoptic entries or detection records with "file_name" or "image".
        input_size: Side of the padded square input, a multiple of the patch size.
        unrelated: Patches that are off-target.
        kinds: Kinds of the regions: True for things, False for stuff.

    Returns:
        {"regions": number, "patches": number, "constructions": {name: {measure: value, "per_block": ...}}}.

    Raises:
        DataError: No region covers half a patch.
    """
    found = {name: [] for name in encoders}
    patches = 0
    for entry in tqdm(entries, desc="interference", unit="image"):
        image = picture_of(entry)
        regions = [r for r in PUBLISHED_LIMITS.choose(segments_of(entry)) if r.is_thing in kinds]
        if not regions:
            continue
        device = next(teacher.parameters()).device
        square, scale = fit_square(image, input_size)
        tower = next(iter(encoders.values())).tower
        cells = (input_size // tower.patch_size,) * 2
        touched, rows, owner = (x.to(device) for x in _measured_patches(regions, scale, input_size, cells))
        if not len(rows):
            continue
        patches += len(rows)
        apart = unrelated_patches(touched, rows, owner, unrelated)
        with torch.no_grad():
            crops = [crop_square(image, region.box, teacher.native_size) for region in regions]
            targets = teacher.encode_image(to_input(crops, teacher.pixels, device))[owner]
        pixels = to_input([square], tower.pixels, device)
        for name, encoder in encoders.items():
            parts = decompose(encoder, pixels, rows, apart)
            aligned = alignment(encoder, parts, targets)
            terms = _terms(parts) | _errors(aligned)
            for region in owner.unique():
                its = owner == region
                means = {key: value[..., its].mean(-1).cpu() for key, value in terms.items()}
                found[name].append(means | {"error_pooled": _pooled_error(aligned, its).cpu()})
    if not patches:
        raise DataError("No region of these images covers half a patch; nothing can be measured.")
    constructions = {name: summarize(means) for name, means in found.items()}
    return {"regions": len(next(iter(found.values()))), "patches": patches, "constructions": constructions}


def _measured_patches(
    regions: list[Region], scale: float, side: int, grid: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(K, N) cells that each region touches; (R,) cells that are more than half covered, and the region of each."""
    masks = np.stack([region.mask for region in regions])
    touched, covered = (mask_cells(masks, scale, side, grid, coverage).flatten(1) for coverage in (0.0, 0.5))
    owner, rows = covered.nonzero(as_tuple=True)
    return touched, rows, owner


def _terms(parts: Parts) -> dict[str, torch.Tensor]:
    """Squares and products per patch, (R,), or (k, R) for the blocks'; before the final norm."""
    on, off = parts.on.sum(0), parts.off.sum(0)
    squares = {
        "whole": parts.whole,
        "on": on,
        "off": off,
        "class_token": parts.class_token,
        "residual": parts.residual,
        "on_blocks": parts.on,
        "off_blocks": parts.off,
    }
    return {name: part.square().sum(-1) for name, part in squares.items()} | {
        "product": (on * off).sum(-1),
        "diagonal": parts.diagonal,
        "mass_off": parts.mass_off,
        "mass_class_token": parts.mass_class_token,
    }


def _errors(found: Alignment) -> dict[str, torch.Tensor]:
    """The terms of Eq. 18, (R,), under names that begin with "error"."""
    return {
        "error": found.error,
        "error_rest": found.rest,
        "error_off": found.off,
        "error_cross": found.cross,
        "error_without_off": found.error_without_off,
    }


def _pooled_error(found: Alignment, its: torch.Tensor) -> torch.Tensor:
    """The error of the region's mean feature, which is what a detector pools; without Eq. 18's terms."""
    pooled = F.normalize(found.feature[its].mean(0), dim=0)
    return (pooled - found.target[its][0]).square().sum()


def build_encoders(
    names: Sequence[str], checkpoint: str, encoder: str, weights: str
) -> tuple[dict[str, DenseEncoder], ImageTower, dict[str, str]]:
    """The constructions over one tower, the teacher, and where both come from.

    Args:
        names: Names in `CONSTRUCTIONS`.
        checkpoint: File whose tower is used for all, and whose gates for its own construction; "" for the plain CLIP.
        encoder, weights: The plain CLIP, see `build_clip`: the teacher, and without a checkpoint the tower too.

    Raises:
        ConfigurationError: An unknown construction, or neither packaged weights nor `weights` for the teacher.
    """
    model = load_checkpoint(checkpoint) if checkpoint else None
    encoder = model.encoder.tower.name if model else encoder
    if not weights and not has_packaged_weights(encoder):
        raise ConfigurationError(f"Give --weights of the plain {encoder}: its class token of the crops is the target.")
    teacher = build_clip(encoder, weights).image.eval()
    tower = model.encoder.tower if model else teacher
    encoders = {name: DenseEncoder(tower, Construction.named(name)).eval() for name in names}
    gates = "untrained: every gate is one half"
    if model:
        own = next((n for n, c in CONSTRUCTIONS.items() if c == model.encoder.construction), "checkpoint")
        if own in encoders or own == "checkpoint":
            encoders[own] = model.encoder.eval()
            gates = f"the checkpoint's, in {own}" if model.encoder.gates is not None else gates
    return encoders, teacher, {"tower": checkpoint or f"plain {encoder}", "teacher": encoder, "gates": gates}
