"""Configuration keys of former versions under their present names.

Configurations inside checkpoints are converted. In a user's file or on the command line an old key is an error that
names the new one, so that files do not keep two spellings.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..structures import CheckpointError, flatten


@dataclass(frozen=True)
class Renamed:
    """A key that has another name now.

    Args:
        new: Present name of the key.
        convert: Old value -> new value.
        also: Further keys of the same meaning, by name; a function of the old value.
        how: Words for the difference in the value; "" for none.
    """

    new: str
    convert: Callable[[Any], Any] = lambda value: value
    also: Callable[[Any], dict[str, Any]] = lambda value: {}
    how: str = ""


@dataclass(frozen=True)
class Removed:
    """A key whose value is fixed now.

    Args:
        values: Values that the code has; empty where the key has no effect on a model.
        why: Behavior of the code.
    """

    values: tuple = ()
    why: str = ""


def _clipping(value: float) -> dict[str, Any]:
    return {"SOLVER.CLIP_GRADIENTS.ENABLED": value > 0, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "full_model"}


OLD_KEYS: dict[str, Renamed | Removed] = {
    # One SOLVER for both trainings.
    "SOLVER.CLIP_NORM": Renamed(
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE",
        convert=lambda value: value or 1.0,
        also=_clipping,
        how="with SOLVER.CLIP_GRADIENTS.ENABLED True",
    ),
    "DISTILL.ACCUMULATE": Renamed("SOLVER.ACCUMULATE"),
    "DISTILL.BETAS": Renamed("SOLVER.BETAS"),
    "DISTILL.EPS": Renamed("SOLVER.EPS"),
    "DISTILL.LR_SCALING": Renamed("SOLVER.LR_SCALING"),
    "DISTILL.REFERENCE_BATCH": Renamed("SOLVER.REFERENCE_BATCH"),
    "DISTILL.EMA.DECAY": Renamed("SOLVER.EMA.DECAY"),
    "DISTILL.EMA.EXPORT": Renamed("SOLVER.EMA.EXPORT", how="'trained' for 'student'"),
    "DISTILL.SHARDING": Renamed("SOLVER.SHARDING", how="'fsdp' for 'zero1'"),
    "DISTILL.PRECISION": Renamed("SOLVER.AMP.PRECISION", how="with SOLVER.AMP.ENABLED True; False for fp32"),
    # Shared by the distillation, its evaluation and the detector.
    "DISTILL.STUDENT_SIZE": Renamed("INPUT.SIZE"),
    "DISTILL.SEMANTICS.POOLED_MAP": Renamed("MODEL.ENCODER.POOLED_MAP"),
    "DISTILL.EVALUATION.TEMPLATES": Renamed("MODEL.VOCABULARY.TEMPLATES"),
    "DISTILL.EVALUATION.BATCH_SIZE": Renamed("TEST.IMS_PER_PROCESS"),
    "DISTILL.EVALUATION.CROPS": Renamed("TEST.REGIONS.CROPS"),
    "DISTILL.EVALUATION.THING_CROP_SCALE": Renamed("TEST.REGIONS.THING_CROP_SCALE"),
    "MODEL.FVIT.VOCABULARY.TEMPLATES": Renamed("MODEL.VOCABULARY.TEMPLATES"),
    "MODEL.FVIT.VOCABULARY.EMBEDDINGS": Renamed("MODEL.VOCABULARY.EMBEDDINGS"),
    "MODEL.FVIT.VOCABULARY.CACHE_DIR": Renamed("MODEL.VOCABULARY.CACHE_DIR"),
    "DISTILL.MAX_UNREADABLE": Renamed("DATALOADER.MAX_UNREADABLE"),
    "DISTILL.FOLDERS": Renamed("DISTILL.SOURCES", how='"folder:PATH" for each'),
    "TEST.PROPOSALS.PER_IMAGE": Renamed("MODEL.RPN.POST_NMS_TOPK_TEST"),
    "MODEL.FVIT.FC_WIDTH": Renamed("MODEL.ROI_BOX_HEAD.FC_DIM"),
    "MODEL.FVIT.ROI.LOW_QUALITY": Renamed(
        "MODEL.FVIT.ROI.LOW_QUALITY",
        convert=lambda value: {"none": False, "overwrite": True}.get(value, value),
        how="True for 'overwrite', False for 'none'",
    ),
    # The code now.
    "MODEL.FVIT.UPSAMPLER_NORM": Removed(why="the upsampler has MODEL.FPN.NORM"),
    "MODEL.FVIT.PADDING": Removed(("square",), "images are padded to a square, as in MMDetection's F-ViT"),
    "MODEL.FVIT.SIZE_CLAMP": Removed(("two_sided",), "the change of a box's size is limited on both sides"),
    "MODEL.FVIT.DROP_EMPTY": Removed((False,), "detections without area are kept"),
    "MODEL.FVIT.RPN.ANCHOR_SCALE": Removed((8.0,), "the side of a square anchor is 8 strides"),
    "MODEL.FVIT.RPN.LOW_QUALITY": Removed(("overwrite",), "a ground-truth box takes its best anchors from others"),
    "MODEL.FVIT.RPN.LOW_QUALITY_IOU": Removed((0.3,), "it takes them from IoU 0.3 on"),
    "MODEL.FVIT.RPN.NORMALISER": Removed(("sampled",), "the RPN's losses are divided by the sampled anchors"),
    "MODEL.FVIT.ROI.LOW_QUALITY_IOU": Removed((0.5,), "regions are taken from the positive IoU on"),
    "MODEL.FVIT.CLASSIFIER.TEMPERATURE": Removed(why="the learned temperature starts at 50"),
    "MODEL.FVIT.CLASSIFIER.LEARN_TEMPERATURE": Removed((True,), "the temperature is learned"),
    "MODEL.FVIT.CLASSIFIER.LOSS_NORMALISER": Removed(("samples",), "the loss is divided by the number of samples"),
    "MODEL.CONSTRUCTION.VALUES": Removed((None,), "MODEL.CONSTRUCTION.NAME chooses it"),
    "MODEL.CONSTRUCTION.MODULE": Removed((None,), "MODEL.CONSTRUCTION.NAME chooses it"),
    "MODEL.CONSTRUCTION.SHARED_GATE": Removed((None,), "MODEL.CONSTRUCTION.NAME denserc_per_layer has one per block"),
    "MODEL.CONSTRUCTION.GATE_POSITION": Removed((None,), "the gate precedes the norm"),
    "DISTILL.REGIONS.SOURCE": Removed(why="DISTILL.REGIONS.PROPOSALS, where it names files, replaces grids"),
    "DISTILL.REGIONS.MIN_SIDE": Removed((8.0,), "proposals under 8^2 pixels are left out"),
    "DISTILL.REGIONS.MAX_SIDE": Removed((1024.0,), "proposals over 1024^2 pixels are left out"),
    "DISTILL.COHERENCE.MASK_PADDING": Removed((False,), "tokens of the padding take part in L_coherence"),
    "DISTILL.FOUNDATION.RANDOM_INIT": Removed(why="an empty DISTILL.FOUNDATION.WEIGHTS gives random weights"),
    "DISTILL.EVALUATION.CLASS_TABLE": Removed(why="OUTPUT_DIR/inference has the table of classes"),
    "DISTILL.PROGRESS_BAR": Removed(why="there is a bar where the output is a terminal"),
}
# Detectron2's defaults, which version 0.1 ignored, and what it built.
_IGNORED = {
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator", "AnchorGrid"),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead", "RPNHead"),
    "MODEL.ROI_BOX_HEAD.NAME": ("", "BoxHead"),
    "MODEL.ROI_MASK_HEAD.NAME": ("MaskRCNNConvUpsampleHead", "MaskHead"),
}


def old_key_advice(key: str) -> str | None:
    """A sentence for the user of an old key or of an old value; None for a key that version 0.1 did not have."""
    old = OLD_KEYS.get(key)
    if isinstance(old, Removed):
        return f"{key} exists no more: {old.why}. Remove it."
    if old is None:
        return None
    if old.new == key:
        return f"Version 0.1 had other values: {old.how}."
    return f"{key} is {old.new} now" + (f" ({old.how})." if old.how else ".")


def convert_detector_config(tree: dict, source: str) -> dict:
    """The configuration in a model's checkpoint, with present keys; one with present keys is returned equal.

    Args:
        tree: Nested mappings, as the file's YAML has them.
        source: The file, for messages.

    Raises:
        CheckpointError: The detector was trained with an option that exists no more.
    """
    flat = flatten(tree)
    if not flat.keys() & {key for key, old in OLD_KEYS.items() if isinstance(old, Removed)}:
        return _moved(tree, flat, source)
    present = {key: value for key, value in flat.items() if key not in OLD_KEYS and not key.startswith("DISTILL.")}
    for key, value in flat.items():
        old = OLD_KEYS.get(key)
        if old is None or key.startswith("DISTILL."):
            continue  # the distillation's keys have no effect on a detector
        if isinstance(old, Renamed):
            if isinstance(value, list | dict) or (key == "SOLVER.CLIP_NORM" and not isinstance(value, int | float)):
                raise CheckpointError(f"The configuration in {source} is damaged: {key} is {value!r}.")
            present |= {old.new: old.convert(value), **old.also(value)}
        elif old.values and value not in old.values:
            raise CheckpointError(
                f"{source} was trained with {key} {value!r}, which exists no more: {old.why}. Version 0.1 of DenseRC "
                "reads it."
            )
    for key, (ignored, built) in _IGNORED.items():
        if present.get(key) == ignored:
            present[key] = built
    return _nested(present, source)


def _moved(tree: dict, flat: dict[str, Any], source: str) -> dict:
    """A configuration of a version after 0.1: only names differ, if anything does."""
    new = {key: old.new for key, old in OLD_KEYS.items() if isinstance(old, Renamed) and old.new != key}
    if not flat.keys() & new.keys():
        return tree
    return _nested({new.get(key, key): value for key, value in flat.items()}, source)


def _nested(flat: dict[str, Any], source: str) -> dict:
    tree: dict = {}
    for key, value in flat.items():
        *groups, last = key.split(".")
        node = tree
        for group in groups:
            node = node.setdefault(group, {})
            if not isinstance(node, dict):
                raise CheckpointError(f"The configuration in {source} is damaged: {group} of {key} is {node!r}.")
        node[last] = value
    return tree
