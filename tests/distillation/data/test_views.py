"""Views made on the device are bitwise identical to the loader's, and so is the training."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from denserc.data.images.resizing import BicubicKernel
from denserc.distillation import distiller
from denserc.distillation.data.batch import DistillationBatch
from denserc.distillation.data.crops import CropResize, CropTransform
from denserc.distillation.data.dataset import DistillationDataset, build_loader
from denserc.distillation.data.regions import GridRegions
from denserc.distillation.data.sources import folder_images
from denserc.distillation.data.views import RawBatch, ViewPlace
from denserc.distillation.engine import run
from denserc.distillation.target_cache import TargetMemory
from denserc.distillation.trainer import latest_state, read_state
from denserc.structures import ConfigurationError

CPU = torch.device("cpu")
TENSORS = ("images", "foundation_images", "crops", "extents")


def make_loader(folder, views, *, crops=None, workers=0, **changes):
    dataset = DistillationDataset(
        records=folder_images(str(folder)),
        regions=GridRegions(max_split=6),
        crops=crops or CropTransform(size=16),
        views=views,
        **{"student_size": 48, "foundation_size": 42, "seed": 5, **changes},
    )
    return build_loader(dataset, batch_size=3, num_workers=workers)


def assert_same(one: DistillationBatch, two: DistillationBatch) -> None:
    for name in TENSORS:
        a, b = getattr(one, name), getattr(two, name)
        assert (a is b is None) or torch.equal(a, b), name
    assert all(torch.equal(a, b) for a, b in zip(one.boxes, two.boxes, strict=True))
    assert (one.paths, one.unreadable, one.num_regions) == (two.paths, two.unreadable, two.num_regions)


@pytest.mark.parametrize("scale", [1.0, 1.5])
@pytest.mark.parametrize("resize", CropResize)
def test_views_are_the_loaders(image_folder, resize, scale):
    Image.new("RGB", (300, 1), (9, 200, 70)).save(image_folder / "flat.png")
    (image_folder / "0.png").write_bytes(b"no image")
    crops = CropTransform(size=16, resize=resize, scale=scale)
    loaders = [make_loader(image_folder, views, crops=crops) for views in ViewPlace]
    for given, raw in itertools.islice(zip(*loaders, strict=True), 8):
        assert raw.num_regions == given.num_regions
        made = raw.views_on(CPU)
        assert_same(given, made)
        assert made.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("foundation", "shared"), [(48, True), (None, False)])
def test_the_second_square_is_made_where_it_is_wanted(image_folder, foundation, shared):
    raw = next(iter(make_loader(image_folder, ViewPlace.DEVICE, foundation_size=foundation)))
    made = raw.views_on(CPU)
    assert (made.foundation_images is made.images) if shared else made.foundation_images is None


def test_workers_hand_over_what_was_read(image_folder):
    plain, workers = (make_loader(image_folder, ViewPlace.DEVICE, workers=n) for n in (0, 2))
    for one, two in itertools.islice(zip(plain, workers, strict=True), 3):
        assert torch.equal(one.pixels, two.pixels) and one.pixels.dtype == torch.uint8
        assert len(one.pixels) == one.sizes.prod(dim=1).sum()
        assert_same(one.views_on(CPU), two.views_on(CPU))


def test_frozen_models_remember_views_of_either_place(image_folder):
    memory, (given, raw) = TargetMemory(), (next(iter(make_loader(image_folder, views))) for views in ViewPlace)
    for batch in (given, raw.views_on(CPU)):
        memory.recall("teacher", batch.crops, lambda: torch.zeros(1))
    assert memory.hits == 1


def test_training_is_the_same_with_either_and_can_switch(make_cfg, tmp_path):
    """Six steps by the loader; on the device, in two parts; three on the device and three by the loader."""
    changes = ("SOLVER.ACCUMULATE", 2, "DISTILL.CROP_RESIZE", "letterbox")
    results, states = [], []
    for name, parts in {"loader": ["loader"], "device": ["device"] * 2, "both": ["device", "loader"]}.items():
        for number, views in enumerate(parts):
            cfg = make_cfg("OUTPUT_DIR", str(tmp_path / name), "DISTILL.VIEWS", views, *changes)
            cfg.SOLVER.MAX_ITER = 6
            with pytest.MonkeyPatch.context() as patch:
                if len(parts) == 2 and number == 0:
                    stop_after_three(patch)
                    with pytest.raises(KeyboardInterrupt):
                        run(cfg)
                    continue
                results.append(run(cfg, resume=number > 0))
        states.append(read_state(latest_state(cfg.OUTPUT_DIR)))
    assert results[0] == results[1] == results[2]
    for state in states[1:]:
        assert state["trainer"]["images_drawn"] == states[0]["trainer"]["images_drawn"] == 24
        assert all(torch.equal(value, state["model"][name]) for name, value in states[0]["model"].items())


def stop_after_three(patch) -> None:
    from denserc.distillation.trainer import DistillationTrainer

    real = DistillationTrainer.run_step

    def step(trainer):
        if trainer.iter == 3:
            raise KeyboardInterrupt
        real(trainer)

    patch.setattr(DistillationTrainer, "run_step", step)


def test_a_failed_batch_is_saved_with_its_views(make_cfg, tmp_path, monkeypatch):
    monkeypatch.setattr(distiller, "semantics_loss", lambda *_: torch.tensor(math.nan, requires_grad=True))
    with pytest.raises(FloatingPointError, match="nan_batch_step1_rank0.pt"):
        run(make_cfg("DISTILL.VIEWS", "device"))
    saved = torch.load(tmp_path / "output" / "nan_batch_step1_rank0.pt", weights_only=True)
    batch = DistillationBatch(**saved["batches"][0])
    assert batch.images.shape == (4, 3, 64, 64) and batch.crops.shape[1:] == (3, 32, 32)
    assert all(Path(path).is_file() for path in batch.paths) and saved["draws"] == [[0, 1, 2, 3]]


def test_only_pillows_pixels_are_made_on_the_device(make_cfg):
    with pytest.raises(ConfigurationError, match="DISTILL.RESAMPLING must stay 'pillow'.*torchvision_uint8"):
        run(make_cfg("DISTILL.VIEWS", "device", "DISTILL.RESAMPLING", BicubicKernel.TORCHVISION.value))
    with pytest.raises(ConfigurationError, match="DISTILL.VIEWS.*loader.*device"):
        run(make_cfg("DISTILL.VIEWS", "gpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_makes_the_same_views(image_folder):
    given, raw = (next(iter(make_loader(image_folder, views))) for views in ViewPlace)
    made = raw.pin_memory().views_on(torch.device("cuda"))
    assert made.images.is_cuda
    assert_same(given, made.to(CPU))


def test_batches_are_made_of_any_sizes(image_folder):
    raw = next(iter(make_loader(image_folder, ViewPlace.DEVICE)))
    assert isinstance(raw, RawBatch) and len({tuple(size) for size in raw.sizes.tolist()}) == 3
    # Every window is inside its image.
    for windows, (height, width) in zip(raw.windows, raw.sizes.tolist(), strict=True):
        assert (windows[:, :2] >= 0).all() and (windows[:, 2] <= width).all() and (windows[:, 3] <= height).all()
    black = replace(raw, pixels=torch.zeros_like(raw.pixels)).views_on(CPU)
    assert not black.images.any() and not black.crops.any()
