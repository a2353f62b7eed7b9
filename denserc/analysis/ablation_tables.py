"""The paper's ablations as data: which settings each row changes, and what the paper reports for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """One row.

    Args:
        title: Title of the row.
        settings: Config keys and values in which it differs from the base config.
        paper: Column of the paper -> its figure.
        trained: True if it is distilled; otherwise the CLIP is used unchanged.
    """

    title: str
    settings: Sequence = ()
    paper: Mapping[str, float] = field(default_factory=dict)
    trained: bool = True


@dataclass(frozen=True)
class Ablation:
    """One table.

    Args:
        title: Subject of the comparison.
        variants: Rows.
        measures: Columns of the paper, and the keys of their counterparts here; the first measured one is compared. A
            column without counterparts is shown only.
    """

    title: str
    variants: Sequence[Variant]
    measures: Mapping[str, Sequence[str]]


REGIONS = {"boxes_top1": "Boxes", "thing_masks_top1": "Thing", "stuff_masks_top1": "Stuff"}
"""Measures of region classification and their titles."""
DOWNSTREAM_TITLES = {"segmentation": "CAT-Seg", "dense_segmentation": "Dense", "detection": "F-ViT"}
DATASET_TITLES = {
    "ade20k_full_sem_seg_freq_val_all": "A-847",
    "context_459_test_sem_seg": "PC-459",
    "ade20k_150_test_sem_seg": "A-150",
    "context_59_test_sem_seg": "PC-59",
    "ov_coco_2017_val": "",
    "miniature_ov_coco_val": "",
    "miniature_semantic_val": "",
    "miniature_semantic_transfer_val": "transfer",
}
"""Short names of data sets in headings; "" where the metric names the measure."""
METRIC_TITLES = {"mIoU": "", "mIoU_seen": "seen", "mIoU_unseen": "unseen", "AP50_novel": "novel AP50"}

_SEGMENTATION = {
    "A-847": ("segmentation/ade20k_full_sem_seg_freq_val_all/mIoU",),
    "PC-459": ("segmentation/context_459_test_sem_seg/mIoU",),
    # In the miniature, the set whose names and look differ from the training set's, as those of A-150 do.
    "A-150": ("segmentation/ade20k_150_test_sem_seg/mIoU", "segmentation/miniature_semantic_transfer_val/mIoU"),
    "PC-59": ("segmentation/context_59_test_sem_seg/mIoU",),
}
_NOVEL = ("detection/ov_coco_2017_val/AP50_novel", "detection/miniature_ov_coco_val/AP50_novel")
_T11 = {"Boxes": ("boxes_top1",), "Thing Masks": ("thing_masks_top1",), "Stuff Masks": ("stuff_masks_top1",)}
_BUILT = {column: _SEGMENTATION[column] for column in ("A-847", "PC-459", "A-150")} | {"OV-COCO novel": _NOVEL}


def _figures(columns: Iterable[str], *values: float) -> dict[str, float]:
    return dict(zip(columns, values, strict=True))


def _named(construction: str, **fields) -> tuple:
    settings = ["MODEL.CONSTRUCTION.NAME", construction]
    for key, value in fields.items():
        settings += [f"MODEL.CONSTRUCTION.{key}", value]
    return tuple(settings)


TABLES = {
    "11": Ablation(
        "Table 11: the losses",
        (
            Variant("CLIP, undistilled", _named("clipself"), _figures(_T11, 18.2, 20.6, 18.4), trained=False),
            Variant("L_semantics", ("DISTILL.COHERENCE.WEIGHT", 0.0), _figures(_T11, 75.3, 76.8, 50.5)),
            Variant("L_coherence", ("DISTILL.SEMANTICS.WEIGHT", 0.0), _figures(_T11, 65.9, 71.4, 51.9)),
            Variant("L_semantics + L_coherence", (), _figures(_T11, 76.7, 78.1, 55.8)),
        ),
        _T11,
    ),
    "12": Ablation(
        "Table 12: W_H shared or one a block",
        (
            Variant("per-layer", _named("denserc_per_layer"), _figures(_T11, 76.6, 77.9, 55.6)),
            Variant("shared", (), _figures(_T11, 76.7, 78.1, 55.8)),
        ),
        _T11,
    ),
    "13": Ablation(
        "Table 13: the final MLP in teacher and student",
        (
            Variant(
                "teacher yes, student yes",
                _named("denserc", FINAL_MLP=True),
                _figures(_SEGMENTATION, 15.9, 22.6, 37.6, 61.4),
            ),
            Variant("teacher yes, student no", (), _figures(_SEGMENTATION, 15.9, 22.7, 37.6, 61.3)),
            Variant(
                "teacher no, student no",
                ("DISTILL.TEACHER.FINAL_MLP", False),
                _figures(_SEGMENTATION, 15.6, 22.8, 37.2, 61.2),
            ),
        ),
        _SEGMENTATION,
    ),
    "construction": Ablation(
        "Ablation of the construction",
        (
            Variant("last block x + v (CLIPSelf)", _named("clipself"), _figures(_BUILT, 15.2, 21.7, 36.6, 41.3)),
            Variant("last block v", _named("last_block_values"), _figures(_BUILT, 15.4, 22.1, 36.7, 41.9)),
            Variant("three blocks' v", _named("denserc_none"), _figures(_BUILT, 15.7, 22.3, 37.2, 44.4)),
            Variant("three blocks' v, q-k attention", _named("denserc_qk"), _figures(_BUILT, 14.7, 21.3, 36.0, 39.1)),
            Variant("three blocks' v, q-q attention", _named("denserc_qq"), _figures(_BUILT, 15.4, 21.9, 36.7, 42.3)),
            Variant("three blocks' v, HSG (DenseRC)", (), _figures(_BUILT, 15.9, 22.7, 37.6, 45.6)),
        ),
        _BUILT,
    ),
    # Not in the paper: whether the gates' own effect depends on how far a short training lets them move.
    "gates": Ablation(
        "The gates' learning rate",
        (
            Variant("no gates", _named("denserc_none")),
            Variant("gates, the tower's rate", ()),
            Variant("gates, 10 x", ("DISTILL.GATE_RATE", 10.0)),
            Variant("gates, 30 x", ("DISTILL.GATE_RATE", 30.0)),
        ),
        {},
    ),
}
