"""Proposals of the RPN, written by one or several processes, and read back by the distillation."""

import json
import random
import threading

import pytest
import torch
from torchvision.ops import box_iou

from denserc.data.proposals import read_proposals, stream_results
from denserc.detection import proposals as module
from denserc.detection.proposals import propose, write_proposals
from denserc.distillation.data.regions import GridRegions, ImageRecord, ProposalRegions
from denserc.structures import ConfigurationError, DataError


@pytest.fixture()
def batches(make_inputs):
    """Five images in batches of two, given to the network at half their size."""
    inputs = make_inputs(sizes=((64, 64), (48, 64), (64, 40), (64, 64), (56, 64)))
    for i, one in enumerate(inputs):
        one["image_id"], one["height"], one["width"] = i + 10, 2 * one["height"], 2 * one["width"]
    return [inputs[i : i + 2] for i in (0, 2, 4)]


def test_boxes_are_in_the_original_image(tiny, batches):
    model = tiny().eval()
    images = model.preprocess(batches[0])
    expected, _ = model.proposal_generator(images, model.backbone(images.tensor))
    for one, (boxes, scores), inner in zip(batches[0], propose(model, batches[0]), expected, strict=True):
        torch.testing.assert_close(boxes, inner.proposal_boxes.tensor * 2)
        assert (scores[:-1] >= scores[1:]).all() and 0 < scores.min() and scores.max() < 1
        assert (boxes[:, 2] <= one["width"]).all() and (boxes[:, 3] <= one["height"]).all()


def test_the_distillation_reads_what_the_detector_writes(tiny, batches, tmp_path):
    model = tiny()
    file = tmp_path / "new" / "proposals.json.gz"
    count = write_proposals(model, batches, file, per_image=20)
    assert model.training  # as it was
    entries = list(stream_results(file))
    assert count == len(entries) and {e["image_id"] for e in entries} == {10, 11, 12, 13, 14}
    assert all(e["category_id"] == 1 and e["bbox"][2] > 0 and 0 < e["score"] < 1 for e in entries)
    assert [p.name for p in file.parent.iterdir()] == ["proposals.json.gz"]

    records = [ImageRecord(f"{i}.png", i) for i in range(10, 16)]
    regions = ProposalRegions(records, {"p": read_proposals(file)}, max_regions=5, fallback=GridRegions())
    assert [regions.covers(record) for record in records] == [True] * 5 + [False]
    boxes, _ = propose(model.eval(), batches[0])[1]
    drawn = regions.sample(ImageRecord("11.png", 11, (96, 128)), random.Random(0))
    assert len(drawn) == 5
    pixels = drawn * torch.tensor([128.0, 96, 128, 96])
    assert (box_iou(pixels, boxes[:20]).amax(dim=1) > 0.99).all()


def test_several_processes_write_one_file_without_repeating(tiny, batches, tmp_path, monkeypatch):
    """The second process runs first and waits at the barrier until the first has joined the parts."""
    alone, together = tmp_path / "alone.json", tmp_path / "together.json"
    write_proposals(tiny().eval(), batches, alone, per_image=30)

    state, barrier = threading.local(), threading.Barrier(2, timeout=60)
    monkeypatch.setattr(module.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(module.comm, "get_rank", lambda: state.rank)
    monkeypatch.setattr(module.comm, "is_main_process", lambda: state.rank == 0)
    monkeypatch.setattr(module.comm, "synchronize", barrier.wait)
    models, counts = [tiny().eval(), tiny().eval()], {}

    def process(rank, share):
        state.rank = rank
        counts[rank] = write_proposals(models[rank], share, together, per_image=30)

    threads = [threading.Thread(target=process, args=(r, s)) for r, s in ((1, batches[2:]), (0, batches[:2]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together.read_text() == alone.read_text()
    assert counts == {0: len(json.loads(alone.read_text())), 1: 0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.json", "together.json"]


def test_what_cannot_be_written_is_refused(tiny, batches, tmp_path, monkeypatch):
    model = tiny()
    with pytest.raises(ConfigurationError, match="1..60, MODEL.RPN.POST_NMS_TOPK_TEST; got 61"):
        write_proposals(model, batches, tmp_path / "p.json", per_image=61)
    monkeypatch.setattr(module.comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(module.comm, "synchronize", lambda: None)
    with pytest.raises(DataError, match="part1.*shared disk"):
        write_proposals(model, batches, tmp_path / "p.json", per_image=5)
    assert not list(tmp_path.iterdir())
