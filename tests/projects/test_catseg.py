"""CAT-Seg's script by its command line: train, resume, evaluate, with own data from a description."""

import importlib.util
from pathlib import Path

import pytest
from detectron2.engine import default_argument_parser

from denserc.tools.train import train
from tests.paths import ROOT
from tests.segmentation.squares import VAL, register_squares, squares_config

SET = "name: own\nclasses: [red square, blue square, green square]\nnovel: [green square]\n"


def call(*arguments):
    path = ROOT / "projects" / "CATSeg" / "train_net.py"
    spec = importlib.util.spec_from_file_location("catseg_train_net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(default_argument_parser().parse_args(list(arguments)))


@pytest.mark.slow
def test_train_resume_and_evaluate_by_the_command_line(tmp_path, forget_registered):
    register_squares(tmp_path)
    part = "{images: ., labels: labels}"
    (tmp_path / "own.yaml").write_text(f"{SET}train: {part}\nval: {part}\n")
    cfg = squares_config(tmp_path, OUTPUT_DIR=str(tmp_path / "out"))
    cfg.merge_from_list(["DATASETS.TRAIN", ("own_train",), "DATASETS.TEST", ("own_val",)])
    cfg.merge_from_list(["DATASETS.REGISTER", (str(tmp_path / "own.yaml"),)])
    (tmp_path / "catseg.yaml").write_text(cfg.dump())
    config = ["--config-file", str(tmp_path / "catseg.yaml")]
    trained = call(*config)["own_val"]["sem_seg"]
    assert {"mIoU", "mIoU_seen", "mIoU_unseen"} <= trained.keys()
    final = tmp_path / "out" / "model_final.pth"
    assert final.is_file()
    assert call(*config[:2], "--resume")["own_val"]["sem_seg"] == pytest.approx(trained, nan_ok=True)
    evaluated = call(
        *config, "--eval-only", "OUTPUT_DIR", str(tmp_path / "again"), "MODEL.WEIGHTS", str(final),
        "MODEL.CATSEG.OUTPUT", "labels",
    )  # fmt: skip
    assert evaluated["own_val"]["sem_seg"] == pytest.approx(trained, nan_ok=True)
    assert len(list(Path(tmp_path / "again").rglob("*.png"))) == 6


def test_the_command_takes_the_engine_of_the_architecture(tmp_path, forget_registered):
    """`denserc train` and `denserc eval` read the same configurations as the scripts."""
    register_squares(tmp_path)
    cfg = squares_config(tmp_path, SOLVER__MAX_ITER=1)
    (tmp_path / "catseg.yaml").write_text(cfg.dump())
    args = default_argument_parser().parse_args(["--config-file", str(tmp_path / "catseg.yaml")])
    assert "mIoU" in train(args)[VAL]["sem_seg"]
