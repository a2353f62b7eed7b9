"""Both scripts by their command lines, on a miniature world of a few scenes: train, resume, evaluate, transfer."""

import importlib.util
import json

import pytest
from detectron2.engine import default_argument_parser

from denserc.construction import read_metadata
from denserc.miniature.write_world import Sizes, write_world
from tests.paths import ROOT

FEW = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "SOLVER.WARMUP_ITERS", "0", "SEED", "1"]


def script(project):
    spec = importlib.util.spec_from_file_location(f"{project}_train_net", ROOT / "projects" / project / "train_net.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(project, config, *flags):
    arguments = ["--config-file", str(ROOT / "configs" / config), *flags]
    return script(project).main(default_argument_parser().parse_args(arguments))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    write_world(root / "miniature", sizes=Sizes(train=6, val=3, transfer=2, lvis_train=4, lvis_val=2))
    return root


@pytest.mark.slow
def test_distil_detect_transfer_by_the_command_line(world, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(world))
    encoder, detector = tmp_path / "encoder", tmp_path / "detector"
    distil = ["miniature/distill_denserc.yaml", *FEW, "OUTPUT_DIR", str(encoder)]
    results = call("Distillation", *distil)
    assert 0 <= results["region_classification"]["boxes_top1"] <= 100
    checkpoint = encoder / "denserc.safetensors"
    assert read_metadata(checkpoint).extra["steps"] == 2
    table = encoder / "inference" / "miniature_panoptic_val_regions" / "region_classification_classes.csv"
    assert table.read_text().startswith("class,kind,regions,boxes_top1")

    again = call("Distillation", *distil[:1], "--eval-only", "--resume", *distil[1:])
    assert again["region_classification"] == pytest.approx(results["region_classification"], nan_ok=True)

    fvit = ["miniature/fvit.yaml", *FEW, "SOLVER.STEPS", "()", "OUTPUT_DIR", str(detector)]
    fvit += ["MODEL.ENCODER.CHECKPOINT", str(checkpoint)]
    trained = call("FViT", *fvit)["miniature_ov_coco_val"]["ov_coco"]
    assert {"AP50_novel", "AP50_base", "AP50_all"} <= trained.keys()
    resumed = call("FViT", *fvit[:1], "--resume", *fvit[1:])["miniature_ov_coco_val"]["ov_coco"]
    assert resumed == pytest.approx(trained, nan_ok=True)

    transfer = call(
        "FViT", "miniature/fvit.yaml", "--eval-only", "OUTPUT_DIR", str(tmp_path / "transfer"),
        "MODEL.WEIGHTS", str(detector / "model_final.pth"), "DATASETS.TEST", "('miniature_transfer_val',)",
    )  # fmt: skip
    assert transfer["miniature_transfer_val"]["coco"].keys() >= {"AP_all", "AP50_all"}
    saved = tmp_path / "transfer" / "inference" / "miniature_transfer_val" / "coco_instances_results.json"
    assert isinstance(json.loads(saved.read_text()), list)

    proposals = tmp_path / "proposals.json.gz"
    written = call(
        "FViT", "miniature/fvit.yaml", "--eval-only", "OUTPUT_DIR", str(tmp_path / "proposals"),
        "MODEL.WEIGHTS", str(detector / "model_final.pth"), "TEST.PROPOSALS.FILE", str(proposals),
        "DATASETS.TEST", "('miniature_ov_coco_train_base',)", "MODEL.RPN.POST_NMS_TOPK_TEST", "50",
    )  # fmt: skip
    assert written["miniature_ov_coco_train_base"]["proposals"]["count"] > 0
    call(
        "Distillation", "miniature/distill_denserc.yaml", *FEW, "OUTPUT_DIR", str(tmp_path / "again"),
        "DISTILL.REGIONS.PROPOSALS", f"('{proposals}',)", "DATASETS.TEST", "()",
    )  # fmt: skip
    assert read_metadata(tmp_path / "again" / "denserc.safetensors").extra["steps"] == 2
