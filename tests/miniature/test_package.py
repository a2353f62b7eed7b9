"""The packaged model: its file is what its recipe makes, and the recipe runs."""

import hashlib
import json
import math
from importlib.resources import files

import pytest
import yaml
from safetensors import safe_open

from denserc.api import PACKAGED
from denserc.config import get_denserc_config, read_config
from denserc.miniature.demo.run import show_first_look
from denserc.miniature.package import (
    DESCRIPTION,
    DETECTOR_CONFIG,
    ENCODER_CONFIG,
    FIRST_DETECTOR_CONFIG,
    FIRST_ENCODER_CONFIG,
    NAME,
    package_miniature,
)
from denserc.miniature.world import CLASS_NAMES, NOVEL_NAMES
from denserc.miniature.write_world import Sizes
from denserc.openvocab import read_checkpoint
from denserc.openvocab.portable import without_folders
from denserc.structures.config_keys import flatten
from tests.paths import CONFIGS

FILE = files("denserc").joinpath(PACKAGED[NAME])
FIGURES = json.loads(FILE.with_suffix(".json").read_text())
OWN = ("OUTPUT_DIR", "MODEL.ENCODER.CHECKPOINT")  # depend on the folder of the run


def recipe(name: str, *overrides) -> dict:
    """A config as a file stores it, without what depends on the folder of the run."""
    return comparable(read_config(CONFIGS / name, overrides).dump())


def comparable(config: str) -> dict:
    values = without_folders(yaml.safe_load(config))
    for key in OWN:
        *nodes, last = key.split(".")
        node = values
        for one in nodes:
            node = node[one]
        node[last] = ""
    return values


def test_the_stored_config_is_the_recipes():
    metadata = read_checkpoint(FILE)["denserc"]
    stored, present = flatten(comparable(metadata["config"])), flatten(recipe(DETECTOR_CONFIG, "SEED", FIGURES["seed"]))
    assert {key: present[key] for key in stored} == stored
    defaults = flatten(yaml.safe_load(get_denserc_config().dump()))  # keys that were added since
    assert all(present[key] == defaults[key] for key in present.keys() - stored.keys())
    assert metadata["description"] == DESCRIPTION
    assert metadata["vocabulary"] == {"names": list(CLASS_NAMES), "novel": sorted(NOVEL_NAMES)}
    configs = {"first_distillation": FIRST_ENCODER_CONFIG, "first_detector": FIRST_DETECTOR_CONFIG}
    configs |= {"distillation": ENCODER_CONFIG, "detector": DETECTOR_CONFIG}
    assert FIGURES["steps"] == {key: read_config(CONFIGS / name).SOLVER.MAX_ITER for key, name in configs.items()}


def test_the_file_is_small_and_is_the_one_that_was_evaluated():
    content = FILE.read_bytes()
    assert len(content) == FIGURES["bytes"] < 6e6
    assert hashlib.sha256(content).hexdigest() == FIGURES["sha256"]
    with safe_open(FILE, framework="pt") as file:
        tensors = [file.get_slice(key) for key in file.keys()]
        numbers = {
            half: sum(math.prod(t.get_shape()) for t in tensors if (t.get_dtype() == "F16") == half) for half in (0, 1)
        }
    assert numbers[True] > 50 * numbers[False]


def test_nothing_of_the_machine_is_in_the_files():
    content = FILE.read_bytes()[:200_000].decode(errors="ignore") + FILE.with_suffix(".json").read_text()
    for folder in ("/wor" + "k/", "/roo" + "t/", "/tm" + "p/"):
        assert folder not in content


def test_the_demo_begins_with_a_picture(tmp_path, capsys):
    show_first_look(tmp_path)
    printed = capsys.readouterr().out
    assert (tmp_path / "first.png").is_file() and "first.png: ground truth and detections" in printed
    assert sum(any(name in line for name in CLASS_NAMES) for line in printed.splitlines()) == 3  # in every scene


@pytest.mark.slow
def test_the_recipe_runs_and_resumes(tmp_path, forget_registered):
    few = ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "SOLVER.WARMUP_ITERS", 0]
    options = {"sizes": Sizes(train=8, val=4, transfer=3, lvis_train=4, lvis_val=2)}
    options |= {"encoder_overrides": few, "detector_overrides": few}
    found = package_miniature(tmp_path, CONFIGS, **options)
    assert found["steps"] == dict.fromkeys(("first_distillation", "first_detector", "distillation", "detector"), 2)
    assert json.loads((tmp_path / f"{NAME}.json").read_text())["sha256"] == found["sha256"]
    assert {"regions", "detection", "transfer"} == found["figures"].keys()
    assert package_miniature(tmp_path, CONFIGS, **options)["sha256"] == found["sha256"]
