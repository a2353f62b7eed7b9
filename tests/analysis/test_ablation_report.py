"""Tables of ablations: headings of measures, and an honest comparison of orders."""

from dataclasses import replace

import pytest

from denserc.analysis.ablation_report import disagreements, measure_title, measured, tabulate
from denserc.analysis.ablation_tables import REGIONS, TABLES, Ablation, Variant

TRANSFER = "segmentation/miniature_semantic_transfer_val/mIoU"
A_150 = "segmentation/ade20k_150_test_sem_seg/mIoU"


def ablation(measures: dict) -> Ablation:
    rows = [Variant("a", paper={"P": 1.0}), Variant("b", paper={"P": 2.0}), Variant("c", paper={"P": 2.0})]
    return Ablation("t", [replace(row, paper={**row.paper, "Q": -row.paper["P"]}) for row in rows], measures)


def test_orders_are_compared_pair_by_pair_and_seed_by_seed():
    runs = {
        "a": [{"boxes_top1": 10.0}, {"boxes_top1": 20.0}],
        "b": [{"boxes_top1": 9.0}, {"boxes_top1": 18.0}],
        "c": [{"boxes_top1": 11.0}, {"boxes_top1": 22.0}],
    }
    # Q has no counterpart: it is shown and compared with nothing.
    remarks = disagreements(ablation({"P": ("boxes_top1",), "Q": ()}), runs)
    assert remarks[0].startswith("1 of 2 pairs")  # b and c are equal in the paper: no order to agree with
    assert len(remarks) == 2 and "'b' 1.0 above 'a'" in remarks[1] and "-1.5 ± 0.7" in remarks[1]


def test_one_seed_has_no_deviation():
    runs = {"a": [{"boxes_top1": 2.0}], "b": [{"boxes_top1": 1.0}], "c": [{"boxes_top1": 3.0}]}
    assert disagreements(ablation({"P": ("boxes_top1",), "Q": ()}), runs)[1].endswith("here Boxes differs by -1.0.")


@pytest.mark.parametrize("keys, compared", [((A_150, TRANSFER), A_150), ((TRANSFER,), TRANSFER)])
def test_the_first_measured_counterpart_is_compared(keys, compared):
    def scores(value: float) -> dict:
        return {"boxes_top1": 0.0} | {key: value if key == compared else 50 - value for key in keys}

    runs = {"a": [scores(2.0)], "b": [scores(1.0)], "c": [scores(3.0)]}
    remarks = disagreements(ablation({"P": (A_150, TRANSFER), "Q": ()}), runs)
    assert remarks[0].startswith("1 of 2") and measure_title(compared) in remarks[1]


def test_nothing_is_compared_without_a_counterpart():
    runs = {row: [{"boxes_top1": 1.0}] for row in "abc"}
    assert disagreements(ablation({"P": (A_150,), "Q": ()}), runs) == []


@pytest.mark.parametrize("name", ["13", "construction"])
def test_regions_are_no_counterpart_of_segmentation(name):
    table = TABLES[name]
    assert not {key for keys in table.measures.values() for key in keys} & set(REGIONS)
    assert table.measures["A-847"] == ("segmentation/ade20k_full_sem_seg_freq_val_all/mIoU",)


def test_every_column_of_the_paper_has_a_registered_set():
    from detectron2.data import DatasetCatalog

    from denserc.data.datasets.builtin import register_all

    register_all("absent")
    for table in TABLES.values():
        for key in [key for keys in table.measures.values() for key in keys]:
            assert key in REGIONS or key.split("/")[1] in DatasetCatalog.list(), key


@pytest.mark.parametrize(
    "key, title",
    [
        ("stuff_masks_top1", "Stuff"),
        (A_150, "CAT-Seg A-150"),
        (TRANSFER, "CAT-Seg transfer"),
        ("segmentation/miniature_semantic_val/mIoU_unseen", "CAT-Seg unseen"),
        ("dense_segmentation/my_set/mIoU", "Dense my_set"),
        ("detection/ov_coco_2017_val/AP50_novel", "F-ViT novel AP50"),
    ],
)
def test_headings(key, title):
    assert measure_title(key) == title


def test_columns_are_those_that_every_run_has():
    runs = {"a": [{"boxes_top1": 1.0, A_150: 2.0}], "b": [{"boxes_top1": 3.0}], "c": [{"boxes_top1": 5.0}]}
    assert measured(runs) == ["boxes_top1"]
    table = tabulate(ablation({"P": (), "Q": ()}), runs)
    assert [column.heading for column in table.columns] == ["Boxes", "P (paper)", "Q (paper)"]
