"""Portable model files: the same model in half the size, and clear errors for files that are not such."""

import json

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import denserc
from denserc.commands.export_portable import main as export_portable
from denserc.config import read_config
from denserc.openvocab import engine, read_checkpoint, save_portable
from denserc.openvocab.portable import ENTRY, is_portable, stored, without_folders
from denserc.structures import CheckpointError, ConfigurationError, FingerprintMismatchError, Vocabulary
from denserc.structures import WeightsMismatchError as Mismatch
from tests.paths import CONFIGS

VOCABULARY = Vocabulary(["red cup", "ball"], novel=["ball"])


@pytest.fixture(scope="module")
def model(detector):
    """A random detector with a vocabulary; not to be changed."""
    loaded = denserc.load_model(detector)
    loaded.set_default_vocabulary(VOCABULARY)
    return loaded


@pytest.fixture(scope="module")
def portable(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("portable") / "model.safetensors"
    save_portable(path, model, description="random weights")
    return path


def rewritten(path, target, *, change=lambda metadata: None, tensors=lambda tensors: None, entry=ENTRY):
    """A copy of a portable file whose metadata or tensors were changed."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()[ENTRY])
    values = load_file(path)
    metadata = change(metadata) or metadata
    tensors(values)
    save_file(values, target, metadata={entry: metadata if isinstance(metadata, str) else json.dumps(metadata)})
    return target


def test_a_round_trip_is_equal_within_half_precision(model, portable, detector):
    loaded = denserc.load_model(portable)
    given, found = model.state_dict(), loaded.state_dict()
    assert given.keys() == found.keys() and not loaded.training
    rounded = 0
    for key, value in given.items():
        assert found[key].dtype == value.dtype, key
        if value.ndim < 2 or key.startswith("text_tower."):
            assert torch.equal(found[key], value), key
        else:
            torch.testing.assert_close(found[key], value, rtol=2**-11, atol=2**-25)
            rounded += not torch.equal(found[key], value)
    assert rounded > 20
    assert loaded.text_tower.fingerprint() == model.metadata["text_fingerprint"]
    assert loaded.vocabulary == VOCABULARY
    assert portable.stat().st_size < 0.65 * detector.stat().st_size  # the random text tower cannot be rounded


def test_detections_are_those_of_the_checkpoint(portable, detector):
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    files = [denserc.Predictor(file, ["red cup", "ball"], device="cpu", threshold=0) for file in (detector, portable)]
    expected, found = (predictor(picture) for predictor in files)
    assert len(found) == len(expected) > 0
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=2e-3)


def test_a_second_export_changes_nothing(portable, tmp_path):
    export_portable([str(portable), str(tmp_path / "again.safetensors")])
    again, once = load_file(tmp_path / "again.safetensors"), load_file(portable)
    assert again.keys() == once.keys() and all(torch.equal(again[key], once[key]) for key in once)
    assert read_checkpoint(tmp_path / "again.safetensors")["denserc"] == read_checkpoint(portable)["denserc"]


def test_the_command_writes_names_and_precision(detector, tmp_path, capsys):
    file = tmp_path / "whole.safetensors"
    words = ["--precision", "float32", "--names", "red cup, ball", "--novel", "ball", "--description", "a test"]
    export_portable([str(detector), str(file), *words])
    assert f"wrote {file}" in capsys.readouterr().out
    given, found = torch.load(detector, weights_only=True)["model"], load_file(file)
    assert given.keys() == found.keys() and all(torch.equal(found[key], value) for key, value in given.items())
    model = denserc.load_model(file)
    assert model.vocabulary == VOCABULARY and model.metadata["description"] == "a test"


def test_model_weights_takes_it(portable, tmp_path):
    overrides = ["MODEL.WEIGHTS", str(portable), "DATASETS.TRAIN", (), "DATASETS.TEST", (), "OUTPUT_DIR", str(tmp_path)]
    model = engine.load_model(read_config(CONFIGS / "miniature" / "fvit.yaml", overrides))
    weights = read_checkpoint(portable)["model"]
    assert all(torch.equal(value, weights[key].to(value.dtype)) for key, value in model.state_dict().items())
    assert model.vocabulary is None and "vocabulary" not in model.metadata


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (torch.tensor([[1e5, 1.0]]), torch.float32),  # beyond float16
        (torch.tensor([0.1, 0.2]), torch.float32),  # a vector that rounding would change
        (torch.tensor([0.5, 2.0]), torch.float16),
        (torch.tensor([[0.1, 0.2]]), torch.float16),
        (torch.tensor([[3]]), torch.int64),
    ],
)
def test_only_matrices_that_fit_are_rounded(value, dtype):
    assert stored("head.weight", value, torch.float16).dtype == dtype
    assert stored("head.weight", value, torch.float32).dtype == value.dtype


def test_the_text_tower_is_rounded_only_if_exact():
    assert stored("text_tower.weight", torch.tensor([[0.1]]), torch.float16).dtype == torch.float32
    assert stored("text_tower.weight", torch.tensor([[0.5]]), torch.float16).dtype == torch.float16


def test_folders_of_the_machine_are_left_out(model, tmp_path):
    config = yaml.safe_load(model.metadata["config"])
    config["MODEL"]["ENCODER"]["CHECKPOINT"] = "/somewhere/else/denserc.safetensors"
    config["OUTPUT_DIR"] = "output/relative"
    found = without_folders(config)
    assert found["MODEL"]["ENCODER"]["CHECKPOINT"] == "denserc.safetensors"
    assert found["OUTPUT_DIR"] == "output/relative" and found["SOLVER"] == config["SOLVER"]
    assert without_folders({"a": ["/x/y", ("/x/z", 3)]}) == {"a": ["y", ["z", 3]]}


def test_other_safetensors_files_are_refused(portable, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(1)}, foreign)
    with pytest.raises(CheckpointError, match="not a model of DenseRC: it lacks the metadata.*denserc export portable"):
        denserc.load_model(foreign)
    assert is_portable(portable) and not is_portable(foreign) and not is_portable(tmp_path / "absent")
    with pytest.raises(CheckpointError, match=r"holds a whole model.*denserc\.load_model"):
        denserc.load(portable)


def test_a_truncated_file_is_refused(portable, tmp_path):
    (tmp_path / "half.safetensors").write_bytes(portable.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read as a safetensors file"):
        denserc.load_model(tmp_path / "half.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: "{not json", "metadata of .* is damaged"),
        (lambda m: m | {"version": 9}, "format version 9; this DenseRC reads version 1"),
        (
            lambda m: {key: m[key] for key in m if key != "construction"},
            r"damaged.safetensors is damaged: missing are \['construction'\]",
        ),
        (lambda m: m | {"encoder": 3}, r"encoder is 3, expected is text"),
        (lambda m: m | {"more": 3}, r"unknown are \['more'\]"),
        (lambda m: m | {"config": "a: [1"}, "configuration in .*damaged.safetensors is damaged: it is not YAML"),
        (lambda m: m | {"config": "just words"}, "'just words' is not a mapping"),
    ],
)
def test_damaged_metadata_is_named(portable, tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(rewritten(portable, tmp_path / "damaged.safetensors", change=change))


def test_weights_that_do_not_fit_are_listed(portable, tmp_path):
    damaged = rewritten(portable, tmp_path / "less.safetensors", tensors=lambda values: values.popitem())
    with pytest.raises(Mismatch, match=r"missing \(1\)"):
        denserc.load_model(damaged)


def test_another_text_tower_is_refused(portable, tmp_path):
    def change(values):
        key = next(key for key in values if key.startswith("text_tower."))
        values[key] = values[key] + 1

    with pytest.raises(FingerprintMismatchError, match="changed by hand"):
        denserc.load_model(rewritten(portable, tmp_path / "other.safetensors", tensors=change))


def test_the_writer_refuses_what_no_reader_takes(model, tmp_path):
    with pytest.raises(ConfigurationError, match=r"named \*\.safetensors; got .*model\.pth"):
        save_portable(tmp_path / "model.pth", model)
    with pytest.raises(ConfigurationError, match="precision is 'int8'; legal are 'float16', 'bfloat16', 'float32'"):
        save_portable(tmp_path / "model.safetensors", model, precision="int8")
    assert not list(tmp_path.iterdir())
