"""Order of draws, views of every draw, and handling of unreadable images."""

import itertools
from random import Random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from denserc.distillation.data.batch import DistillationBatch
from denserc.distillation.data.crops import CropTransform
from denserc.distillation.data.dataset import DistillationDataset, build_loader
from denserc.distillation.data.regions import GridRegions
from denserc.distillation.data.sources import collect_images, folder_images
from denserc.engine.stream import PositionSampler
from denserc.structures import DataError


def make_dataset(folder, **changes) -> DistillationDataset:
    options = {"student_size": 32, "foundation_size": 28, "seed": 5, **changes}
    return DistillationDataset(
        records=folder_images(str(folder)), regions=GridRegions(max_split=3), crops=CropTransform(size=16), **options
    )


def take(sampler, count):
    return list(itertools.islice(sampler, count))


def equal(one: DistillationBatch, two: DistillationBatch) -> bool:
    names = ("images", "foundation_images", "crops", "extents")
    same = all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)
    return same and all(torch.equal(a, b) for a, b in zip(one.boxes, two.boxes, strict=True))


def test_every_round_has_every_image_once_in_a_new_order(image_folder):
    def rounds(seed):
        dataset = make_dataset(image_folder, seed=seed)
        found = [dataset.locate(position) for position in range(30)]
        assert [round_ for round_, _ in found] == [0] * 10 + [1] * 10 + [2] * 10
        return [[index for _, index in found[i : i + 10]] for i in (0, 10, 20)]

    orders = rounds(1)
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert rounds(2)[0] != orders[0]


def test_draws_are_those_of_version_0_1(image_folder):
    """Resumed trainings of before continue, and the figures of before come out again."""
    dataset = make_dataset(image_folder, seed=5)
    found = [dataset.locate(position)[1] for position in (*range(12), 10, 25, 0)]
    assert found == [8, 5, 9, 4, 6, 3, 7, 2, 0, 1, 0, 1, 0, 1, 8]
    sample = dataset[3]
    assert len(sample.boxes) == 4 and sample.boxes[0].tolist() == pytest.approx([0.0, 0.0, 0.34, 0.5])
    assert int(sample.image.sum()) == 263071


def test_processes_share_the_positions_without_overlap(monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    ranks = []
    for rank in range(3):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        ranks.append(take(PositionSampler(first=3), 4))
    assert [position for group in zip(*ranks, strict=True) for position in group] == list(range(3, 15))


def test_views_share_their_geometry(image_folder):
    sample = make_dataset(image_folder)[0]
    assert sample.image.shape == (3, 32, 32) and sample.foundation_image.shape == (3, 28, 28)
    assert sample.crops.shape == (len(sample.boxes), 3, 16, 16)
    assert max(sample.extent) == 1 and min(sample.extent) < 1
    assert (sample.boxes[:, 2] <= sample.extent[1] + 1e-6).all()
    assert (sample.boxes[:, 3] <= sample.extent[0] + 1e-6).all()
    batch = DistillationBatch.collate([sample, sample])
    rows, columns = batch.content_mask((16, 16))[0].nonzero().amax(dim=0).add(1).tolist()
    assert (rows, columns) == (round(16 * sample.extent[0]), round(16 * sample.extent[1]))


def test_equal_sizes_share_one_view(image_folder):
    dataset = make_dataset(image_folder, foundation_size=32)
    batch = DistillationBatch.collate([dataset[0], dataset[1]])
    assert batch.foundation_images is batch.images
    moved = batch.to(torch.device("cpu"))
    assert moved.foundation_images is moved.images
    without = make_dataset(image_folder, foundation_size=None)[0]
    assert DistillationBatch.collate([without]).foundation_images is None


def test_workers_and_restarts_change_nothing(image_folder):
    dataset = make_dataset(image_folder)
    plain = list(itertools.islice(build_loader(dataset, batch_size=3), 5))
    workers = list(itertools.islice(build_loader(dataset, batch_size=3, num_workers=2), 5))
    restarted = list(itertools.islice(build_loader(dataset, batch_size=3, start=9), 2))
    assert all(equal(a, b) for a, b in zip(plain, workers, strict=True))
    assert all(equal(a, b) for a, b in zip(plain[3:], restarted, strict=True))
    assert not equal(plain[0], plain[1])


def test_reading_leaves_the_global_generator_alone(image_folder):
    before = torch.get_rng_state()
    next(iter(build_loader(make_dataset(image_folder), batch_size=2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_unreadable_images_are_passed_over_and_named(image_folder):
    (image_folder / "0.png").write_bytes(b"no image")
    whole = (image_folder / "1.png").read_bytes()
    (image_folder / "1.png").write_bytes(whole[: len(whole) // 2])
    dataset = make_dataset(image_folder)
    sample = dataset.sample(0, Random(4))
    assert [path[-5:] for path, _ in sample.unreadable] == ["0.png", "1.png"]
    assert torch.equal(sample.image, dataset.sample(2, Random(4)).image)


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="None of the 1 images"):
        make_dataset(tmp_path)[0]


def test_every_kind_of_image_goes_through(tmp_path):
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (20, 40, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    rgb.save(tmp_path / "exif.jpg", exif=turned)
    rgb.convert("CMYK").save(tmp_path / "cmyk.jpg")
    rgb.convert("P").save(tmp_path / "palette.png", transparency=0)
    rgb.convert("RGBA").save(tmp_path / "alpha.png")
    rgb.convert("L").save(tmp_path / "grey.png")
    deep = rng.integers(0, 65536, (20, 40), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    dataset = make_dataset(tmp_path)
    extents = {r.path.rsplit("/", 1)[1]: dataset.sample(i, Random(i)).extent for i, r in enumerate(dataset.records)}
    assert len(extents) == 6
    assert extents.pop("exif.jpg") == (1.0, 0.5)
    assert set(extents.values()) == {(0.5, 1.0)}


@pytest.mark.parametrize("size", [(1, 50), (50, 1), (1, 1), (3, 400)])
def test_the_narrowest_images_go_through(tmp_path, size):
    """The whole image is seen, also where a side would be less than a pixel of the square; cells keep a pixel."""
    Image.fromarray(np.full((*size, 3), 200, np.uint8)).save(tmp_path / "a.png")
    dataset = make_dataset(tmp_path)
    for number in range(20):
        sample = dataset[number]
        assert sample.extent == (size[0] / max(size), size[1] / max(size))
        rows, columns = (max(1, round(32 * share)) for share in sample.extent)
        assert (sample.image[:, :rows, :columns] == 200).all() and sample.image.sum() == 3 * 200 * rows * columns
        assert (sample.crops == 200).all() and torch.isfinite(sample.boxes).all()


def test_sources_mix_and_hold_each_file_once(image_folder, tmp_path):
    name = "distillation_test_set"
    records = [{"file_name": str(image_folder / f"{i}.png"), "image_id": i} for i in (3, 3, 4)]
    DatasetCatalog.register(name, lambda: records)
    try:
        found = collect_images([name], [f"folder:{image_folder}"])
    finally:
        DatasetCatalog.remove(name)
    assert [r.image_id for r in found[:2]] == [3, 4]
    assert len(found) == 10
    with pytest.raises(DataError, match="No training images"):
        collect_images([], [])
    with pytest.raises(DataError, match="no_such_set"):
        collect_images(["no_such_set"], [])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="No image below"):
        collect_images([], [f"folder:{tmp_path / 'empty'}"])
