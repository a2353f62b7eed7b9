"""Frozen maps on disk: training with them is the same as without, and no outdated file is read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file
from torch import nn

from denserc.detection.data import training_mapper
from denserc.detection.modeling.feature_cache import CachePrecision, FeatureCache, view_digest
from denserc.engine.stream import TrainingStream
from denserc.openvocab.loader import build_train_loader
from denserc.structures import ConfigurationError
from tests.detection.squares import assert_same_weights, saved, train

CPU = torch.device("cpu")
MAPS = [torch.arange(6.0).reshape(1, 1, 2, 3) / 7, torch.ones(1, 2, 1, 1)]


def files(folder) -> list[Path]:
    return sorted(Path(folder).rglob("*.safetensors"))


@pytest.fixture()
def make_cache(tmp_path):
    def make(**options):
        torch.manual_seed(0)
        defaults = {"limit_gb": 1.0, "precision": CachePrecision.FP32, "about": "", "encoder": nn.Linear(2, 2)}
        return FeatureCache(tmp_path / "maps", **{**defaults, **options})

    return make


def fetch(cache, view="ab12"):
    """(maps, whether they were computed)."""
    calls = []

    def compute():
        calls.append(1)
        return [one.clone() for one in MAPS]

    return cache.maps(view, CPU, compute), bool(calls)


def test_training_with_the_cache_is_bitwise_identical(config, tmp_path):
    views = {"INPUT__FIXED_VIEWS": 2, "SOLVER__MAX_ITER": 7, "SOLVER__IMS_PER_BATCH": 4, "DATASETS__TEST": ()}
    cached = {**views, "MODEL__FVIT__CACHE__DIR": str(tmp_path / "maps")}
    runs = [config(OUTPUT_DIR=str(tmp_path / name), **options) for name, options in
            (("without", views), ("filling", cached), ("filled", cached))]  # fmt: skip
    for cfg in runs:
        train(cfg)
        # Six images, of which training has seen both views: four steps and a half of four images see all.
        assert len(files(tmp_path / "maps")) == (0 if cfg is runs[0] else 12)
    states = [saved(cfg) for cfg in runs]
    for other in states[1:]:
        assert_same_weights(states[0]["model"], other["model"])


def test_half_precision_maps_train_nearly_alike(config, tmp_path):
    views = {"INPUT__FIXED_VIEWS": 1, "SOLVER__MAX_ITER": 1, "DATASETS__TEST": ()}
    exact = config(OUTPUT_DIR=str(tmp_path / "exact"), **views)
    half = config(MODEL__FVIT__CACHE__DIR=str(tmp_path / "maps"), MODEL__FVIT__CACHE__PRECISION="fp16", **views)
    train(exact)
    train(half)
    first, second = saved(exact)["model"], saved(half)["model"]
    assert any(not torch.equal(value, second[key]) for key, value in first.items())
    for key, value in first.items():
        if key.startswith("backbone.") and "running_" in key:  # before anything is sampled
            torch.testing.assert_close(value, second[key], atol=1e-4, rtol=1e-3, msg=key)


def test_maps_are_kept_exactly_and_found_again(make_cache):
    first, computed = fetch(make_cache())
    assert computed and all(torch.equal(a, b) for a, b in zip(first, MAPS, strict=True))
    cache = make_cache()
    again, computed = fetch(cache)
    assert not computed and all(torch.equal(a, b) for a, b in zip(again, MAPS, strict=True))
    assert (cache.hits, cache.misses) == (1, 0)
    assert fetch(cache, "cd34")[1]


@pytest.mark.parametrize(
    "change",
    [
        {"about": "another block"},
        {"precision": CachePrecision.FP16},
        {"encoder": nn.Linear(2, 2)},
    ],
)
def test_what_decides_the_maps_is_in_their_name(make_cache, change):
    fetch(make_cache())
    assert fetch(make_cache(**change))[1]
    assert not fetch(make_cache())[1]


def test_half_precision_is_the_same_when_read_and_is_finite(make_cache):
    large = [torch.tensor([1.0, 70000.0]), torch.tensor([1 / 3])]
    results = [make_cache(precision=CachePrecision.FP16).maps("ab", CPU, lambda: large) for _ in range(2)]
    for maps in results:
        assert torch.equal(maps[0], large[0])
        assert maps[1].dtype is torch.float32 and 0 < abs(maps[1] - 1 / 3).item() < 2**-11 / 3
    assert torch.equal(results[0][1], results[1][1])


def test_a_damaged_file_is_computed_again_and_replaced(make_cache, tmp_path, caplog):
    fetch(make_cache())
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:20])
    assert fetch(make_cache())[1] and "cannot be read" in caplog.text
    assert not fetch(make_cache())[1]
    assert [one.name for one in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["bit", "no sums", "a map less", "other names", "another value"])
def test_maps_that_are_not_those_written_are_computed(make_cache, tmp_path, caplog, damage):
    fetch(make_cache())
    (file,) = files(tmp_path)
    content = load_file(file)
    if damage == "bit":
        data, wanted = file.read_bytes(), MAPS[0].numpy().tobytes()
        at = data.index(wanted) + 9
        file.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
    else:
        changed = {"no sums": {"checksums": None}, "a map less": {"map1": None},
                   "other names": {"map0": None, "other": content["map0"]},
                   "another value": {"map1": content["map1"] + 1}}[damage]  # fmt: skip
        save_file({key: value for key, value in {**content, **changed}.items() if value is not None}, file)
    maps, computed = fetch(make_cache())
    assert computed and "computed again" in caplog.text and all(map(torch.equal, maps, MAPS))
    assert not fetch(make_cache())[1]


def test_a_full_cache_computes_and_says_so_once(make_cache, tmp_path, caplog):
    cache = make_cache(limit_gb=2e-6)
    views = [f"{i:04d}" for i in range(20)]
    assert all(fetch(cache, view)[1] for view in views)
    count = len(files(tmp_path))
    assert 0 < count < 20 and caplog.text.count("is full") == 1
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 2000
    assert [fetch(cache, view)[1] for view in views] == [False] * count + [True] * (20 - count)
    # Existing files count toward the limit of the next run too.
    fetch(make_cache(limit_gb=2e-6), "another")
    assert len(files(tmp_path)) == count


def test_a_view_is_named_by_its_pixels_and_its_padding():
    image = torch.zeros(3, 4, 6, dtype=torch.uint8)
    other = image.clone()
    other[2, 3, 5] = 1
    names = {view_digest(image, (8, 8)), view_digest(other, (8, 8)), view_digest(image, (8, 16))}
    assert len(names) == 3 and view_digest(image.reshape(3, 6, 4), (8, 8)) not in names
    assert view_digest(image.clone(), (8, 8)) in names


def test_fixed_views_take_turns(config):
    def draw(record):
        return record, np.random.rand()

    stream = TrainingStream(list(range(5)), draw, seed=3, views=2)
    rounds = [{record: value for record, value in (stream[5 * r + i] for i in range(5))} for r in range(4)]
    assert rounds[0] == rounds[2] and rounds[1] == rounds[3]
    assert len({*rounds[0].values(), *rounds[1].values()}) == 10
    batches = iter(
        build_train_loader(config(INPUT__FIXED_VIEWS=1), training_mapper(config(INPUT__FIXED_VIEWS=1)), start=0, seed=0)
    )
    seen = {}
    for _ in range(6):
        for one in next(batches):
            assert torch.equal(seen.setdefault(one["image_id"], one["image"]), one["image"])


def test_a_cache_that_could_never_be_hit_is_refused(config, tmp_path):
    folder = str(tmp_path / "maps")
    with pytest.raises(ConfigurationError, match="INPUT.FIXED_VIEWS"):
        build_model(config(MODEL__FVIT__CACHE__DIR=folder))
    assert build_model(config(MODEL__FVIT__CACHE__DIR=folder, INPUT__SCALE_JITTER=[1.0, 1.0])).views_alone
    with pytest.raises(ConfigurationError, match="LIMIT_GB"):
        build_model(config(MODEL__FVIT__CACHE__DIR=folder, INPUT__FIXED_VIEWS=1, MODEL__FVIT__CACHE__LIMIT_GB=0.0))
