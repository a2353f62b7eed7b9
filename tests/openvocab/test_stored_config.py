"""A model's file: what it may decide, and damaged entries told by file and name."""

import math

import pytest
import torch
import yaml

import denserc
from denserc.config import KEYS, get_denserc_config, key_rules
from denserc.detection import load_detector
from denserc.openvocab.checkpoint import METADATA, read_checkpoint
from denserc.openvocab.stored_config import NOT_TAKEN, merge_stored_config, parse_config, stored_config
from denserc.structures import CheckpointError, flatten


@pytest.fixture(scope="module")
def content(detector):
    return torch.load(detector, weights_only=True)


@pytest.fixture()
def rewrite(content, tmp_path):
    """rewrite(change of the configuration, or of the file's content) -> path of a changed copy."""

    def write(change=lambda config: None, *, whole=lambda content: content):
        metadata = content[METADATA]
        config = yaml.safe_load(metadata["config"])
        change(config)
        copy = {**content, METADATA: {**metadata, "config": yaml.safe_dump(config)}}
        torch.save(whole(copy), tmp_path / "model.pth")
        return tmp_path / "model.pth"

    return write


def put(key, value):
    def change(config):
        *groups, last = key.split(".")
        for group in groups:
            config = config.setdefault(group, {})
        config[last] = value

    return change


@pytest.mark.parametrize("load", [denserc.load_model, load_detector])
def test_a_file_does_not_choose_where_files_are_read_or_written(rewrite, tmp_path, monkeypatch, load):
    home, elsewhere = tmp_path / "home", tmp_path / "chosen"
    home.mkdir()
    monkeypatch.chdir(home)

    def change(config):
        config["OUTPUT_DIR"] = str(elsewhere)
        put("MODEL.VOCABULARY.CACHE_DIR", str(elsewhere / "cache"))(config)
        put("MODEL.VOCABULARY.EMBEDDINGS", str(elsewhere / "e.pt"))(config)
        put("MODEL.FVIT.CACHE.DIR", str(elsewhere / "maps"))(config)
        put("MODEL.ENCODER.CHECKPOINT", str(elsewhere / "denserc.safetensors"))(config)
        put("MODEL.ENCODER.WEIGHTS", str(elsewhere / "clip.pt"))(config)
        put("MODEL.WEIGHTS", str(elsewhere / "model.pth"))(config)
        put("DATASETS.TRAIN", ["nothing"])(config)
        put("DATASETS.REGISTER", [str(elsewhere / "set.yaml")])(config)

    model = load(rewrite(change))
    model.set_vocabulary(["cat"])
    assert model.cache_dir is None and model.embeddings_file == ""
    assert not elsewhere.exists() and not list(home.iterdir())


def test_the_cache_is_the_callers(rewrite, tmp_path):
    model = denserc.load_model(rewrite(put("OUTPUT_DIR", str(tmp_path / "chosen"))), cache_dir=tmp_path / "own")
    model.set_vocabulary(["cat"])
    assert list((tmp_path / "own").iterdir()) and not (tmp_path / "chosen").exists()


def test_every_key_with_a_path_is_left_out():
    """A key whose help speaks of files or folders is one that a file cannot set, or is named here."""
    no_paths = {"INPUT.FIXED_VIEWS", "TEST.RESUME_PREDICTIONS", "TEST.BEST", "SOLVER.EMA.EXPORT"}
    paths = [
        key.name
        for key in KEYS
        if isinstance(key.default, str | tuple | list)
        and key.choices is None
        and any(word in key.help.lower() for word in ("file", "folder", "path"))
        and key.name not in no_paths
    ]
    assert len(paths) > 8
    assert not [name for name in paths if not any(name == one or name.startswith(f"{one}.") for one in NOT_TAKEN)]


BAD_VALUES = {
    "text for a number": ("INPUT.SIZE", "big"),
    "a negative size": ("INPUT.SIZE", -64),
    "a list for a number": ("INPUT.SIZE", [64]),
    "a fraction": ("INPUT.SIZE", 64.5),
    "nothing": ("INPUT.SIZE", None),
    "true": ("INPUT.SIZE", True),
    "a group": ("INPUT.SIZE", {"A": 1}),
    "an empty group": ("INPUT.SIZE", {}),
    "NaN": ("MODEL.FVIT.FUSION.TEMPERATURE", math.nan),
    "infinity": ("MODEL.FVIT.FUSION.TEMPERATURE", math.inf),
    "another word": ("MODEL.FVIT.NMS", "per_pixel"),
    "a value for a group": ("MODEL.FVIT", 3),
    "a number for text": ("MODEL.META_ARCHITECTURE", 3),
    "an unknown architecture": ("MODEL.META_ARCHITECTURE", "Nothing"),
    "Detectron2's own": ("MODEL.META_ARCHITECTURE", "GeneralizedRCNN"),
    "text for a list": ("MODEL.PIXEL_MEAN", "abc"),
    "a short list": ("MODEL.PIXEL_MEAN", [1.0]),
    "a range": ("MODEL.RPN.NMS_THRESH", 7.0),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_a_bad_value_names_file_and_key(rewrite, case):
    key, value = BAD_VALUES[case]
    with pytest.raises(CheckpointError, match=rf"model\.pth.*{key}"):
        denserc.load_model(rewrite(put(key, value)))


def test_keys_of_other_versions_are_added(rewrite):
    model = denserc.load_model(rewrite(put("MODEL.OF_TOMORROW.SIZE", [1, {"a": 2}])))
    assert model.metadata["encoder"] == "DenseRC-Miniature"


def entry(key, value):
    return lambda content: {**content, METADATA: {**content[METADATA], key: value}}


def without(key):
    return lambda content: {**content, METADATA: {k: v for k, v in content[METADATA].items() if k != key}}


CONTENTS = {
    "tag": (entry("config", "MODEL: !!python/object/apply:os.getcwd []"), "not YAML of plain values"),
    "no YAML": (entry("config", "a: [}"), "not YAML"),
    "a list": (entry("config", "- 1"), r"\[1\] is not a mapping"),
    "empty": (entry("config", ""), "None is not a mapping"),
    "no text": (entry("config", [1]), r"'config' of 'denserc' .* is \[1\]"),
    "no config": (without("config"), "carries no configuration"),
    "deep": (entry("config", "a: " + "[" * 5000), "not YAML"),
    "metadata null": (lambda content: {**content, METADATA: None}, "'denserc' of .* is None"),
    "metadata text": (lambda content: {**content, METADATA: "x"}, "'denserc' of .* is 'x'"),
    "no metadata": (lambda content: {"model": content["model"]}, "needs the entries 'model' and 'denserc'"),
    "a list of all": (lambda content: [content], "needs the entries"),
    "no fingerprint": (without("text_fingerprint"), "lack the entry 'text_fingerprint'"),
    "no encoder": (without("encoder"), "lack the entry 'encoder'"),
    "no construction": (without("construction"), "lack the entry 'construction'"),
    "encoder number": (entry("encoder", 3), "'encoder' of .* is 3, expected is text"),
    "encoder": (entry("encoder", "nothing"), "encoder does not fit.*'nothing'"),
    "construction": (entry("construction", {"more": 1}), "construction does not fit.*more"),
    "construction of tensors": (entry("construction", {torch.ones(1): 1}), "construction does not fit"),
    "position": (entry("position_resize", "nearest"), "position_resize does not fit.*bicubic"),
    "vocabulary": (entry("vocabulary", ["cat"]), r"'vocabulary' of .* is \['cat'\]"),
    "names": (entry("vocabulary", {"names": "cat", "novel": []}), "vocabulary in .* expected are lists"),
    "names twice": (entry("vocabulary", {"names": ["a", "a"], "novel": []}), "vocabulary in .* is damaged"),
    "no novel": (entry("vocabulary", {"names": ["a"]}), "vocabulary in .* expected are lists"),
    "model null": (lambda content: {**content, "model": None}, "'model' of .* is None"),
    "model of numbers": (lambda content: {**content, "model": {"a": 3}}, "'model' of .* holds 3 under 'a'"),
    "model without names": (lambda content: {**content, "model": {3: torch.ones(1)}}, "'model' of .* under 3"),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_a_damaged_entry_names_file_and_entry(rewrite, case):
    change, told = CONTENTS[case]
    with pytest.raises(CheckpointError, match=rf"(?s)model\.pth.*{told}|{told}.*"):
        denserc.load_model(rewrite(whole=change))


def test_weights_that_are_not_finite_name_file_and_tensor(rewrite):
    key = "roi_heads.box_head.fcs.0.weight"

    def change(content):
        return {**content, "model": {**content["model"], key: content["model"][key] * float("nan")}}

    with pytest.raises(CheckpointError, match=rf"model\.pth hold NaN or infinite values: {key}"):
        denserc.load_model(rewrite(whole=change))


def test_a_flipped_bit_of_a_model_is_told(rewrite, content):
    path = rewrite()
    wanted = content["model"]["roi_heads.box_head.fcs.0.weight"].numpy().tobytes()
    data = path.read_bytes()
    at = data.index(wanted)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    assert read_checkpoint(path)["model"]  # the description is whole
    with pytest.raises(CheckpointError, match=r"model\.pth is damaged.*CRC"):
        denserc.load_model(path)


# 9 ^ 11 values in 12 lines
BOMB = "\n".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 9 if i else ['1'])}]" for i in range(12))
OTHER_VALUES = ("a: &a {b: *a}", BOMB, "3: 1", "a.b: 1", "a: 2026-11-25", "a: 2026-99-99", "? [1]\n: 2")
OTHER_VALUES += ("a: !!set {b}", "a: !!binary YQ==", "a: !!python/tuple [1]", f"a: {'1' * 5000}")


@pytest.mark.parametrize("text", OTHER_VALUES, ids=range(len(OTHER_VALUES)))
def test_configurations_of_other_values_are_refused(text):
    with pytest.raises(CheckpointError, match="m.pth is damaged"):
        parse_config(text, "m.pth")


def test_a_stored_configuration_of_defaults_changes_nothing():
    cfg, expected = get_denserc_config(), get_denserc_config()
    text = expected.dump()
    merge_stored_config(cfg, stored_config({"config": text}, "m.pth"), key_rules(), "m.pth")
    assert flatten(cfg) == flatten(expected)
