"""The reader of configurations: errors, and the names in their messages."""

import os
import re
import subprocess
import sys

import pytest

from denserc.config import KEYS, get_denserc_config, override, read_config
from denserc.engine.detectron2_keys import RANGES
from denserc.structures import ConfigurationError, flatten
from tests.paths import CONFIGS, FIXTURES, ROOT

RULES = (*RANGES, *KEYS)


@pytest.fixture()
def write(tmp_path):
    """write(text, name) -> path of a YAML file."""

    def make(text: str, name: str = "own.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


MALICIOUS = "OUTPUT_DIR: !!python/object/apply:os.system ['touch {mark}']"


@pytest.mark.parametrize("tag", [MALICIOUS, "OUTPUT_DIR: !!python/object/new:os.system ['touch {mark}']"])
def test_python_tags_are_never_run(write, tmp_path, tag):
    mark = tmp_path / "mark"
    path = write(tag.format(mark=mark))
    for config in (path, write("_BASE_: own.yaml", "child.yaml")):
        with pytest.raises(ConfigurationError, match=r"own.yaml is not a readable YAML file of plain values"):
            read_config(config)
    assert not mark.exists()


def test_a_malicious_file_does_not_run_in_a_command(write, tmp_path):
    """The whole command line, as Detectron2's set-up opens the file once more to log it."""
    mark = tmp_path / "mark"
    command = [sys.executable, "projects/FViT/train_net.py", "--config-file", str(write(MALICIOUS.format(mark=mark)))]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 2 and not mark.exists()
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "base", ["http://example.com/a.yaml", "https://example.com/a.yaml", "s3://bucket/a.yaml", "detectron2://a.yaml"]
)
def test_bases_are_local_files_only(write, base):
    with pytest.raises(ConfigurationError, match=f"own.yaml: _BASE_ is {base}. Only local files"):
        read_config(write(f"_BASE_: {base}"))


def test_bases_are_relative_to_their_file_or_absolute_or_at_home(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write("SEED: 1\nSOLVER: {MAX_ITER: 10, BASE_LR: 1e-3}", "a/base.yaml")
    write("SOLVER: {MAX_ITER: 20}", "a/second.yaml")
    for base in ("../a/base.yaml", str(tmp_path / "a" / "base.yaml"), "~/a/base.yaml"):
        cfg = read_config(write(f"_BASE_: {base}\nSEED: 2", "b/own.yaml"))
        assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (2, 10, 1e-3)
    cfg = read_config(write("_BASE_: [a/base.yaml, a/second.yaml]"))
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER) == (1, 20)


def test_circular_bases_are_refused(write):
    write("_BASE_: b.yaml", "a.yaml")
    with pytest.raises(ConfigurationError, match="leads back to a file .*a.yaml -> .*b.yaml -> .*a.yaml"):
        read_config(write("_BASE_: a.yaml", "b.yaml").with_name("a.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- 1\n- 2", "holds a list"),
        ("just words", "holds a str"),
        ("A: [1, 2", "not a readable YAML file"),
        ("_BASE_: 3", "_BASE_ is 3; expected the path"),
        ("_BASE_: absent.yaml", "There is no configuration file .*absent.yaml"),
        ("1: 2", "keys are names such as MODEL; got 1"),
        ("SOLVER: 3", "SOLVER is a group of keys and cannot be 3. Its keys: .*BASE_LR"),
        ("SOLVER: {BASE_LR: {X: 1}}", "there is no key SOLVER.BASE_LR.X"),
        ("SOLVER: {BASE_LRR: 1}", "there is no key SOLVER.BASE_LRR. The nearest is SOLVER.BASE_LR"),
        ("DISTIL: {CROP_SIZE: 1}", "there is no key DISTIL.CROP_SIZE. The nearest is DISTILL.CROP_SIZE"),
        ("MODEL: {CROP_SIZE: 1}", "there is no key MODEL.CROP_SIZE. The nearest is DISTILL.CROP_SIZE"),
        ("SOLVER: {BASE_LR: fast}", "SOLVER.BASE_LR is 'fast'; expected a number, at least 0"),
        ("SOLVER: {BASE_LR: .nan}", "SOLVER.BASE_LR is nan; expected a finite number"),
        ("SOLVER: {BASE_LR: -1.0}", "SOLVER.BASE_LR is -1.0; expected at least 0"),
        ("SOLVER: {EMA: {DECAY: 1.0}}", "SOLVER.EMA.DECAY is 1.0; expected at least 0 and below 1"),
        ("SOLVER: {BETAS: [0.9, .inf]}", "SOLVER.BETAS is .*; expected a finite number"),
        ("SOLVER: {MAX_ITER: 1.5}", "SOLVER.MAX_ITER is 1.5; expected a whole number"),
        ("MODEL: {MASK_ON: 1}", "MODEL.MASK_ON is 1; expected True or False"),
        ("MODEL: {CONSTRUCTION: {NAME: densrc}}", "'densrc'; expected .*'clipself'.* The nearest is 'denserc'"),
        ("MODEL: {CONSTRUCTION: {NUM_BLOCKS: two}}", "NUM_BLOCKS is 'two'; expected a whole number, at least 1"),
        ("DATASETS: {TRAIN: ov_coco}", "DATASETS.TRAIN is 'ov_coco'; expected a list"),
        ("VERSION: 1", "VERSION is 1; expected at least 2"),
    ],
)
def test_messages_name_file_key_value_and_what_is_legal(write, text, message):
    with pytest.raises(ConfigurationError, match=f"own.yaml.*{message}|{message}") as error:
        read_config(write(text))
    assert ".yaml" in str(error.value)


def test_the_message_names_the_file_of_a_chain_that_is_wrong(write):
    write("SOLVER: {BASE_LR: fast}", "base.yaml")
    with pytest.raises(ConfigurationError, match="base.yaml: SOLVER.BASE_LR"):
        read_config(write("_BASE_: base.yaml\nSEED: 1"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["SOLVER.BASE_LR"], "come in pairs KEY VALUE; 1 words"),
        (["SOLVER.BASELR", "1"], "the command line: there is no key SOLVER.BASELR. The nearest is SOLVER.BASE_LR"),
        (["SOLVER.BASE_LR", "nan"], "the command line: SOLVER.BASE_LR is 'nan'; expected a number"),
        (["SOLVER.BASE_LR", "1e999"], "expected a finite number"),
        (["SOLVER.SHARDING", "non"], "the command line: SOLVER.SHARDING is 'non'; .*The nearest is 'none'"),
        (["_BASE_", "x.yaml"], "there is no key _BASE_"),
        (["MODEL", "x"], "MODEL is a group of keys"),
    ],
)
def test_the_command_line_is_checked_alike(words, message):
    with pytest.raises(ConfigurationError, match=message):
        read_config(None, words)


def test_values_of_the_command_line_are_literals_or_text():
    words = ["SOLVER.BASE_LR", "1", "DATASETS.TRAIN", "('a', 'b')", "OUTPUT_DIR", "2026", "MODEL.MASK_ON", "True"]
    cfg = read_config(
        CONFIGS / "ovcoco_vitb16.yaml", [*words, "SOLVER.STEPS", "[5]", "MODEL.CONSTRUCTION.NUM_BLOCKS", "2"]
    )
    assert cfg.SOLVER.BASE_LR == 1.0 and type(cfg.SOLVER.BASE_LR) is float and cfg.SOLVER.STEPS == (5,)
    assert (cfg.DATASETS.TRAIN, cfg.OUTPUT_DIR, cfg.MODEL.MASK_ON) == (("a", "b"), "2026", True)
    assert cfg.MODEL.CONSTRUCTION.NUM_BLOCKS == 2
    assert cfg.is_frozen()


@pytest.mark.parametrize("name", ["ovlvis_vitl14", "distill/clipself_vitl14"])
def test_a_dump_is_read_as_the_same_configuration(write, name):
    cfg = read_config(CONFIGS / f"{name}.yaml")
    assert read_config(write(cfg.dump())) == cfg


def test_a_name_is_resolved_before_it_is_read(write):
    path = write("SEED: 7")
    assert read_config("a_name", resolve={"a_name": path}.__getitem__).SEED == 7


def test_override_keeps_what_it_does_not_name():
    cfg = read_config(CONFIGS / "ovcoco_vitb16.yaml").clone()
    cfg.defrost()
    override(cfg, ["SEED", 3], "row 1")
    assert cfg.SEED == 3 and cfg.SOLVER.MAX_ITER == 5052
    with pytest.raises(ConfigurationError, match="row 1: there is no key SED"):
        override(cfg, ["SED", 3], "row 1")


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("fuzz-51-config-runs-code/cfg.yaml", "cfg.yaml is not a readable YAML file of plain values"),
        ("fuzz-51-config-runs-code/over.yaml", "cfg.yaml is not a readable YAML file of plain values"),
        ("fuzz-52-config-unknown-key/cfg.yaml", "cfg.yaml: .*DISTILL.STUDENT_SZIE. The nearest is"),
        ("fuzz-54-config-empty/cfg.yaml", "cfg.yaml is empty"),
        ("fuzz-55-config-weight-nan/cfg.yaml", "cfg.yaml: DISTILL.COHERENCE.WEIGHT is nan; expected a finite number"),
    ],
)
def test_configurations_that_once_failed(case, message, capfd):
    with pytest.raises(ConfigurationError, match=message):
        read_config(FIXTURES / "cases" / case)
    assert "THIS CODE RAN" not in capfd.readouterr().out


# Numbers whose sign has a meaning, and groups that no model of ours reads.
FREE = {"SEED", "GLOBAL.HACK", "MODEL.DENSE_SEGMENTER.THRESHOLD", "MODEL.PIXEL_MEAN", "MODEL.RPN.CONV_DIMS"}
FREE |= {"MODEL.RPN.BOUNDARY_THRESH", "MODEL.RPN.IOU_LABELS", "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER"}
UNREAD = (
    "MODEL.RETINANET.",
    "MODEL.RESNETS.",
    "MODEL.ROI_KEYPOINT_HEAD.",
    "MODEL.PANOPTIC_FPN.",
    "MODEL.SEM_SEG_HEAD.",
)
UNREAD += (
    "MODEL.ROI_BOX_CASCADE_HEAD.",
    "MODEL.ANCHOR_GENERATOR.",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "TEST.EXPECTED_RESULTS",
)
UNREAD += ("MODEL.FPN.IN_FEATURES", "DATASETS.PROPOSAL_FILES")
DEFAULTS = flatten(get_denserc_config())


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@pytest.mark.parametrize("key", sorted(DEFAULTS))
def test_no_key_takes_a_value_without_sense(key):
    """NaN, infinity and huge numbers nowhere; negative numbers and other types only where they mean something."""
    default, inner = DEFAULTS[key], DEFAULTS[key]
    while isinstance(inner, (list, tuple)) and inner:
        inner = inner[0]
    bad = [float("nan"), float("inf"), -float("inf"), 10**400, {}, {"a": 1}, [float("nan")], [10**30], [[float("inf")]]]
    if not isinstance(default, str):
        bad += ["", "zzz", b"x"]
    if not isinstance(default, bool):
        bad += [True]
    if not isinstance(default, str) and default is not None:
        bad += [None]
    if not key.startswith(UNREAD) and key not in FREE and is_number(inner):
        bad += [[-5] * len(default), [-0.5]] if isinstance(default, (list, tuple)) else [-5, -0.5, -1e-9]
    if isinstance(default, (list, tuple)) and not key.startswith(UNREAD):
        bad += [[{}], [None], [[[1]]], 3]
    kinds = [rule.kind for rule in RULES if rule.name == key]
    for value in bad:
        if default is None and (value is None or (kinds and type(value) is kinds[0] and value != "zzz")):
            continue
        with pytest.raises(ConfigurationError, match=re.escape(key)):
            read_config(None, [key, value])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["INPUT.SCALE_JITTER", "[2.0, 0.1]"], "2 values, the first the smallest, each above 0"),
        (["INPUT.SCALE_JITTER", "[1.0]"], "2 values"),
        (["MODEL.FVIT.BLOCKS", "[3.0, 5, 7, 11]"], "a list, each element a whole number"),
        (["MODEL.CATSEG.WINDOWS.CANVAS", "[640]"], "0 or 2 values"),
        (["MODEL.PIXEL_MEAN", "[1.0, 2.0]"], "3 values"),
        (["DATASETS.TRAIN", "(3,)"], "a list, each element a text"),
        (["TEST.LVIS_PROTOCOLS", "[]"], "1 or 2 of 'standard', 'fixed'"),
        (["SOLVER.WARMUP_METHOD", "linaer"], "The nearest is 'linear'"),
        (["SEED", str(2**40)], "within -2147483647..2147483647"),
    ],
)
def test_lengths_orders_and_words_are_checked(words, message):
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read_config(None, words)
