"""docs/SCALING.md has the script's tables, its counts are the models' counts, and its arithmetic is correct."""

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from benchmarks import cost_model, distillation_step
from benchmarks.cost_inputs import COUNTED, Assumed, mean_crops, trainings
from benchmarks.counts import detector_counts, distillation_counts, learning_parameters
from denserc.config import read_config
from denserc.construction.cost import flop_counter
from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.detection.data import training_mapper
from denserc.openvocab.loader import build_train_loader
from tests.detection.squares import CLASSES, squares_config, write_squares
from tests.paths import ROOT


def configured(file: str):
    cfg = read_config(ROOT / "configs" / file)
    cfg.defrost()
    return cfg


def test_the_page_has_the_scripts_tables():
    page = cost_model.PAGE.read_text()
    assert cost_model.with_tables(page, cost_model.tables(Assumed())) == page, "python -m benchmarks.cost_model --write"
    with pytest.raises(ValueError, match="0 places for the table 'none'"):
        cost_model.with_tables(page, {"none": ""})


@pytest.mark.slow
@pytest.mark.parametrize("config", ["distill/denserc_vitb16.yaml", "ovlvis_vitb16.yaml"])
def test_counts_are_the_models(config):
    """Those of L/14, the same code on larger weights: python -m benchmarks.cost_model --count."""
    assert cost_model.counted_anew([config]) == {config: COUNTED[config]}


def test_a_step_of_the_distillation_multiplies_its_parts():
    """A real one, on a CPU: beyond the parts are the losses and what fused attention computes again."""
    options = distillation_step.parser().parse_args([*distillation_step.QUICK, "--regions", "4", "--crop", "64"])
    trainer = distillation_step.trainer_of(options, 128, distillation_step.Way.OURS, torch.device("cpu"))
    counter = flop_counter()
    with EventStorage() as trainer.storage, counter:
        trainer.run_step()
    cfg = configured("miniature/distill_denserc.yaml")
    counts = distillation_counts(cfg)
    parts = counts.student + counts.foundation + 4 * counts.crop
    assert 1 <= counter.get_total_flops() / 2 / parts < 1.06
    assert counts.student_forward < counts.student / 2.5
    assert counts.learning == learning_parameters(cfg) == _learning(trainer.distiller.student)


def test_a_step_of_the_detector_multiplies_its_parts(tmp_path):
    """A real one, on a CPU, of an image whose samples are all drawn."""
    write_squares(tmp_path)
    register_open_vocab_dataset("counted", tmp_path / "squares.json", tmp_path, base=CLASSES[:2], novel=CLASSES[2:])
    try:
        changes = {"DATASETS__TRAIN": ("counted",), "SOLVER__IMS_PER_BATCH": 1, "INPUT__SIZE": 64}
        cfg = squares_config(tmp_path, **changes, MODEL__RPN__POST_NMS_TOPK_TRAIN=1000, DATALOADER__NUM_WORKERS=0)
        torch.manual_seed(0)
        model, counter = build_model(cfg).train(), flop_counter()
        model.set_vocabulary(CLASSES)
        batch = next(iter(build_train_loader(cfg, training_mapper(cfg), start=0, seed=0)))
        with EventStorage(), counter:
            sum(model(batch).values()).backward()
        counts = detector_counts(cfg, classes=len(CLASSES))
        assert counts.learning == learning_parameters(cfg) == _learning(model)
    finally:
        DatasetCatalog.remove("counted")
        MetadataCatalog.remove("counted")
    assert counter.get_total_flops() / 2 == pytest.approx(counts.encoder + counts.heads, rel=0.02)


def _learning(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def test_cost_follows_from_its_parts():
    assumed = Assumed(peak=100.0, utilisation=0.5, inside=10.0, between=1.0, per_machine=8)
    for training in trainings():
        one, eight, many = (cost_model.cost(training, gpus, assumed) for gpus in (1, 8, 256))
        assert one.steps == pytest.approx(training.epochs * training.images / training.batch, abs=1)
        assert one.sent == one.all_reduce == 0 and one.hours[0] == one.hours[1]
        assert one.compute == pytest.approx(2 * training.macs * training.batch / 50e12)
        assert eight.compute == pytest.approx(one.compute / 8) and eight.batch == training.batch
        assert eight.sent == pytest.approx(2 * 7 / 8 * training.gradient_bytes)
        assert eight.all_reduce == pytest.approx(eight.sent / 10e9)
        assert many.all_reduce == pytest.approx(many.sent / 1e9)
        assert many.batch == 256 and many.steps == pytest.approx(training.epochs * training.images / 256, abs=1)
        assert many.hours[0] <= many.hours[1]


def test_regions_of_an_image_are_the_mean_over_grids():
    assert mean_crops(2, 20) == (1 + 2 + 2 + 4) / 4 and mean_crops(2, 3) == (1 + 2 + 2 + 3) / 4
