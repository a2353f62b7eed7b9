"""The paper's ablations as data: which settings each row changes, and what the paper reports for it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Variant:
    """One row.

    Args:
        title: of the row.
        settings: config keys and values in which it differs from the base config.
        paper: the paper's column -> its figure.
        trained: whether it is distilled; otherwise the CLIP is read as it is.
    """

    title: str
    settings: Sequence = ()
    paper: Mapping[str, float] = field(default_factory=dict)
    trained: bool = True


@dataclass(frozen=True)
class Ablation:
    """One table.

    Args:
        title: what is compared.
        variants: its rows.
        measures: the paper's columns, and which of ours each is compared with; None for those that are shown alone.
    """

    title: str
    variants: Sequence[Variant]
    measures: Mapping[str, str | None]


OURS = {"boxes_top1": "Boxes", "thing_masks_top1": "Thing", "stuff_masks_top1": "Stuff"}
_REGIONS = {"Boxes": "boxes_top1", "Thing Masks": "thing_masks_top1", "Stuff Masks": "stuff_masks_top1"}
_SEGMENTATION = ("A-847", "PC-459", "A-150")


def _figures(columns: Sequence[str], *values: float) -> dict[str, float]:
    return dict(zip(columns, values, strict=True))


def _named(construction: str, **fields) -> tuple:
    settings = ["MODEL.CONSTRUCTION.NAME", construction]
    for key, value in fields.items():
        settings += [f"MODEL.CONSTRUCTION.{key}", value]
    return tuple(settings)


_T13 = (*_SEGMENTATION, "PC-59")
_BUILT = (*_SEGMENTATION, "OV-COCO novel")

TABLES = {
    "11": Ablation(
        "Table 11: the losses",
        (
            Variant(
                "CLIP, undistilled", _named("clipself"), _figures(tuple(_REGIONS), 18.2, 20.6, 18.4), trained=False
            ),
            Variant("L_semantics", ("DISTILL.COHERENCE.WEIGHT", 0.0), _figures(tuple(_REGIONS), 75.3, 76.8, 50.5)),
            Variant("L_coherence", ("DISTILL.SEMANTICS.WEIGHT", 0.0), _figures(tuple(_REGIONS), 65.9, 71.4, 51.9)),
            Variant("L_semantics + L_coherence", (), _figures(tuple(_REGIONS), 76.7, 78.1, 55.8)),
        ),
        _REGIONS,
    ),
    "12": Ablation(
        "Table 12: W_H shared or one a block",
        (
            Variant("per-layer", _named("denserc_per_layer"), _figures(tuple(_REGIONS), 76.6, 77.9, 55.6)),
            Variant("shared", (), _figures(tuple(_REGIONS), 76.7, 78.1, 55.8)),
        ),
        _REGIONS,
    ),
    "13": Ablation(
        "Table 13: the final MLP in teacher and student",
        (
            Variant(
                "teacher yes, student yes", _named("denserc", FINAL_MLP=True), _figures(_T13, 15.9, 22.6, 37.6, 61.4)
            ),
            Variant("teacher yes, student no", (), _figures(_T13, 15.9, 22.7, 37.6, 61.3)),
            Variant(
                "teacher no, student no", ("DISTILL.TEACHER.FINAL_MLP", False), _figures(_T13, 15.6, 22.8, 37.2, 61.2)
            ),
        ),
        dict.fromkeys(_T13) | {"A-150": "stuff_masks_top1"},
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
        dict.fromkeys(_SEGMENTATION) | {"A-150": "stuff_masks_top1", "OV-COCO novel": "boxes_top1"},
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
