"""CAT-Seg through the shared engine: training, resuming, evaluation, checkpoints."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from denserc.data.datasets.semantic import register_semantic_dataset
from denserc.data.images.labels import read_labels, write_labels
from denserc.detection import load_detector
from denserc.engine import StepTrainer
from denserc.evaluation import detection_evaluators
from denserc.openvocab.engine import build
from denserc.segmentation import CATSeg, run
from denserc.segmentation.data import test_mapper as make_test_mapper
from denserc.segmentation.data import training_mapper
from denserc.structures import ConfigurationError, DataError
from tests.detection.squares import CLASSES, assert_same_weights, saved
from tests.segmentation.squares import TRAIN, VAL, SumOfScores, register_squares, squares_config
from tests.stopping import assert_same_state, stop_in_step


@pytest.fixture()
def config(tmp_path, forget_registered):
    """make(**changes) -> a configuration on the drawn squares."""
    register_squares(tmp_path)
    return lambda **changes: squares_config(tmp_path, **changes)


def train(cfg, **options):
    torch.manual_seed(0)  # the random initial weights
    return run(cfg, **{"evaluator_factory": SumOfScores, **options})


def test_it_learns(config):
    """mIoU by the evaluator of semantic sets, on the training pictures."""
    options = {
        "MODEL__ENCODER__RANDOM_INIT": False,
        "MODEL__CATSEG__INPUT_SIZE": [64, 64],
        "MODEL__CATSEG__IGNORED": "excluded",
        "MODEL__CATSEG__TRAIN__LR_FACTOR": 1.0,
        "INPUT__COLOR_AUG_SSD": False,
        "SOLVER__BASE_LR": 0.003,
        "SOLVER__CHECKPOINT_PERIOD": 100,
    }
    cfg = config(**options, SOLVER__MAX_ITER=60)
    few = config(**options, SOLVER__MAX_ITER=1, OUTPUT_DIR=cfg.OUTPUT_DIR + "_few")
    before = train(few, evaluator_factory=detection_evaluators(few))[VAL]["sem_seg"]["mIoU"]
    after = train(cfg, evaluator_factory=detection_evaluators(cfg))[VAL]["sem_seg"]["mIoU"]
    assert after > before + 20
    best = torch.load(Path(cfg.OUTPUT_DIR) / "model_best.pth", weights_only=True)["best"]
    assert best == {"metric": "sem_seg/mIoU", "value": after, "step": 60}


@pytest.mark.parametrize(
    "changes",
    [
        {"SOLVER__EMA__DECAY": 0.5},
        {"MODEL__CATSEG__TRAIN__TEXT": "qkv"},
        {"SOLVER__AMP__ENABLED": True, "SOLVER__AMP__PRECISION": "bf16"},
    ],
)
def test_a_resumed_run_is_bitwise_identical(config, tmp_path, changes):
    whole = config(**changes)
    results = train(whole)
    resumed = config(**changes, OUTPUT_DIR=str(tmp_path / "resumed"))
    shutil.copy(Path(whole.OUTPUT_DIR) / "model_0000001.pth", resumed.OUTPUT_DIR)
    (Path(resumed.OUTPUT_DIR) / "last_checkpoint").write_text("model_0000001.pth")
    assert train(resumed, resume=True) == results
    assert_same_weights(saved(whole)["model"], saved(resumed)["model"])


def test_only_the_chosen_weights_change(config):
    cfg = config(SOLVER__BASE_LR=0.01)
    torch.manual_seed(0)
    before = {key: value.clone() for key, value in build(cfg).state_dict().items()}
    train(cfg)
    after = saved(cfg)["model"]
    assert before.keys() == after.keys() and not any("parametrizations" in key for key in after)
    changed = {key for key in after if not torch.equal(before[key], after[key])}
    towers = {key for key in changed if key.startswith(("encoder.", "text_tower."))}
    image, text = ({key for key in towers if key.startswith(name)} for name in ("encoder.", "text_tower."))
    depth = len({key for key in after if key.startswith("encoder.") and key.endswith("attn.v_proj.weight")})
    assert len({key for key in image if key.endswith("v_proj.weight")}) == depth
    assert len({key for key in image if key.endswith("q_proj.weight")}) == depth - 1  # the last q has no use
    assert len(image) == 2 * depth - 1 and not any("gates" in key for key in changed)
    assert text and all(key.endswith("in_proj_weight") for key in text)
    for key in text:
        q, k, v = ((b - a).abs().max() for a, b in zip(before[key].chunk(3), after[key].chunk(3), strict=True))
        assert k == 0 and q > 0 and v > 0
    assert len(changed - towers) == len([key for key in after if key.startswith(("aggregator.", "guidance_"))])


@pytest.mark.parametrize("changes", [{}, {"MODEL__CATSEG__TRAIN__IMAGE": "none", "MODEL__CATSEG__TRAIN__TEXT": "none"}])
def test_it_loads_from_its_checkpoint_with_other_names(config, changes):
    cfg = config(**changes)
    results = train(cfg)
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    again = train(config(**changes, MODEL__WEIGHTS=path), eval_only=True)
    assert again == results
    frozen = config(MODEL__WEIGHTS=path, MODEL__CATSEG__TRAIN__IMAGE="none", MODEL__CATSEG__TRAIN__TEXT="none")
    assert train(frozen, eval_only=True) == results  # a checkpoint does not store the set of trained weights
    model = load_detector(path)
    assert type(model) is CATSeg and not model.training
    model.set_vocabulary(["red square", "violet square"])
    item = make_test_mapper(cfg)(DatasetCatalog.get(VAL)[0])
    scores = model([item])[0]["sem_seg"]
    assert scores.shape == (2, item["height"], item["width"]) and 0 <= scores.min() <= scores.max() <= 1


def test_periodic_evaluation_uses_the_trained_text(config):
    """CAT-Seg keeps the text features of its first evaluation."""
    cfg = config(TEST__EVAL_PERIOD=2, SOLVER__BASE_LR=1.0, SOLVER__CLIP_GRADIENTS__ENABLED=False)
    results = train(cfg)
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    assert train(config(MODEL__WEIGHTS=path), eval_only=True) == results


@pytest.mark.parametrize("labels", [True, False])
def test_an_evaluator_that_reads_labels_gets_no_scores(config, labels):
    """Scores of all classes would be T maps of the picture's size."""
    seen = []

    class Evaluator(SumOfScores):
        reads_labels = labels

        def process(self, inputs, outputs):
            seen.extend(output["sem_seg"].ndim for output in outputs)

    train(config(SOLVER__MAX_ITER=1), evaluator_factory=Evaluator)
    assert set(seen) == {2 if labels else 3}


@pytest.mark.parametrize("area", [1.0, 0.5])
def test_the_training_mapper_crops_pads_and_keeps_labels(config, area):
    options = {"INPUT__MIN_SIZE_TRAIN": (30,), "INPUT__COLOR_AUG_SSD": False}
    mapper = training_mapper(config(**options, INPUT__CROP__SINGLE_CATEGORY_MAX_AREA=area))
    found = mapper(DatasetCatalog.get(TRAIN)[0])
    assert found["image"].shape == (3, 40, 40) and found["image"].dtype == torch.uint8
    assert found["sem_seg"].shape == (40, 40) and found["sem_seg"].dtype == torch.int64
    # 64 x 40 pixels become 48 x 30, of which 40 x 30 are cut out and padded at the right.
    assert (found["image"][:, :, 30:] == 128).all() and (found["sem_seg"][:, 30:] == -1).all()
    assert found["sem_seg"].min() == -1 and found["sem_seg"].max() <= 2
    for label, color in enumerate(torch.eye(3) * 255):
        inside = torch.nn.functional.max_pool2d((found["sem_seg"] != label).float()[None], 5, 1, 2)[0] == 0
        assert not inside.any() or (found["image"][:, inside].float().mean(dim=1) - color).abs().max() < 60


def test_sets_with_different_ignored_labels_are_refused(config, tmp_path):
    register_semantic_dataset(VAL, tmp_path, tmp_path / "labels", classes=CLASSES, ignore_label=7)
    with pytest.raises(ConfigurationError, match="ignored pixels"):
        training_mapper(config(DATASETS__TRAIN=(TRAIN, VAL)))
    with pytest.raises(ConfigurationError, match="RANDOM_FLIP"):
        training_mapper(config(INPUT__RANDOM_FLIP="diagonal"))


def test_colors_are_a_function_of_numpys_generator(config):
    mapper, record = training_mapper(config()), DatasetCatalog.get(TRAIN)[0]
    images = []
    for seed in (0, 0, 1):
        np.random.seed(seed)
        images.append(mapper(record)["image"])
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_labels_of_another_size_are_refused(config, tmp_path):
    record = dict(DatasetCatalog.get(TRAIN)[0])
    record["sem_seg_file_name"] = str(tmp_path / "other.png")
    write_labels(record["sem_seg_file_name"], np.zeros((3, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="labels"):
        training_mapper(config())(record)


def test_classes_are_the_data_sets(config):
    cfg = config()
    train(cfg)
    model = build(config(MODEL__WEIGHTS=str(Path(cfg.OUTPUT_DIR) / "model_final.pth")))
    assert model.vocabulary.names == CLASSES


def test_novel_names_are_not_learned_as_negatives(config, tmp_path):
    """A training set with a novel class learns what one without that class learns."""
    losses = []
    for names, novel in ((CLASSES, CLASSES[1:2]), (CLASSES[:1] + CLASSES[2:], ())):
        labels = tmp_path / f"labels_of_{len(names)}"
        for record in DatasetCatalog.get(VAL):
            found = read_labels(record["sem_seg_file_name"])
            kept = [CLASSES.index(name) for name in names]
            table = np.array([kept.index(k) if k in kept else 255 for k in range(len(CLASSES))] + [255] * 253, np.uint8)
            write_labels(labels / f"{record['image_id']}.png", table[found])
        register_semantic_dataset("seen_only", tmp_path, labels, classes=names, novel=novel, training=True)
        cfg = config(DATASETS__TRAIN=("seen_only",), DATASETS__TEST=())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = build(cfg).train()
        assert model.vocabulary.names == tuple(CLASSES[:1] + CLASSES[2:]) and not model.vocabulary.novel
        mapper = training_mapper(cfg)
        records = []
        for record in DatasetCatalog.get("seen_only"):
            np.random.seed(0)
            records.append(mapper(record))
        losses.append(model(records)["loss_sem_seg"].item())
    assert losses[0] == losses[1]


def test_a_signal_ends_the_step_and_resume_is_exact(config, tmp_path, monkeypatch):
    whole, stopped = config(), config(OUTPUT_DIR=str(tmp_path / "stopped"))
    results = train(whole)
    stop_in_step(monkeypatch, StepTrainer, "_update_weights", 3, signal.SIGTERM, lambda: train(stopped))
    assert train(stopped, resume=True) == results
    assert_same_state(saved(whole), saved(stopped))
