"""The demo's tables: the right measure in each column, mean and deviation over the seeds."""

import pytest

from denserc.miniature.demo.report import segmentation_summary, summary
from denserc.miniature.demo.stages import CONTENDERS


def run_of(offset: float) -> dict:
    regions = {"boxes_top1": 1, "thing_masks_top1": 2, "stuff_masks_top1": 3, "thing_crops_top1": 90.0}
    return {
        "regions": {name: value + offset for name, value in regions.items()},
        "detection": {"AP50_novel": 4 + offset, "AP50_base": 5 + offset, "AP50_all": 6 + offset},
        "transfer": {"AP_all": 7 + offset},
        "segmentation": {"mIoU": 99.0, "mIoU_seen": 8 + offset, "mIoU_unseen": 9 + offset},
        "segmentation_transfer": {"mIoU": 10 + offset},
        "dense_segmentation": {"mIoU": 11 + offset, "mIoU_seen": 99.0, "mIoU_unseen": 12 + offset},
    }


@pytest.mark.parametrize(("make", "first", "columns"), [(summary, 1, 7), (segmentation_summary, 8, 5)])
def test_each_column_has_its_measure(make, first, columns):
    results = {seed: {c.key: run_of(seed) for c in CONTENDERS} for seed in (0, 2)}
    table = make(results)
    assert list(table.rows) == [c.title for c in CONTENDERS]
    for cells in table.rows.values():
        assert [cell.mean for cell in cells.values()] == [first + i + 1 for i in range(columns)]
        assert all(cell.deviation == pytest.approx(2**0.5) for cell in cells.values())
    assert [column.name for column in table.columns] == list(table.rows["DenseRC"])
    assert "seeds 0, 2" in table.note
