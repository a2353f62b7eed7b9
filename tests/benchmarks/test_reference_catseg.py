"""The reference finds the same logits, labels, losses and gradients; both benchmarks run."""

import json

import pytest
import torch

from benchmarks import segmentation_inference, segmentation_training
from benchmarks.drawn_segmenter import MINIATURE, OPENAI_VITB16, class_names, configuration, drawn_picture
from benchmarks.drawn_segmenter import drawn_segmenter as drawn
from benchmarks.reference_catseg import ReferenceCATSeg
from denserc.structures import ConfigurationError
from tests.paths import ROOT

CPU = torch.device("cpu")


def make(classes, *changes, dtype=torch.float32):
    cfg = configuration(str(ROOT / OPENAI_VITB16), CPU, *MINIATURE, *changes)
    model = drawn(cfg, class_names(classes))
    for layer in model.aggregator.layers:
        torch.nn.init.normal_(layer.classes.padding_token)
        torch.nn.init.normal_(layer.classes.padding_guidance)
    return model.to(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("classes", [5, 16, 40])  # of 16 in the layers: padding, none, a selection
@torch.no_grad()
def test_the_same_logits_and_labels(classes, dtype, tolerance):
    model = make(classes, dtype=dtype)
    theirs = ReferenceCATSeg(model)
    images = torch.randn(2, 3, 48, 48, dtype=dtype)
    text = model.classes.require()
    torch.testing.assert_close(model.logits(images, text), theirs.logits(images, text), atol=tolerance, rtol=tolerance)
    one = drawn_picture((90, 120), (60, 80), classes)
    labels = model([one])[0]["sem_seg"]
    assert torch.equal(labels, theirs([one])[0]["sem_seg"])
    assert len(labels.unique()) > 3


@pytest.mark.parametrize("classes", [5, 40])
def test_the_same_loss_and_gradients(classes):
    model = make(classes, dtype=torch.float64).train()
    found = {}
    batch = [drawn_picture((48, 48), (48, 48), classes, seed) for seed in range(2)]
    for name, network in (("ours", model), ("theirs", ReferenceCATSeg(model))):
        model.zero_grad()
        loss = network(batch)["loss_sem_seg"]
        loss.backward()
        grads = {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}
        found[name] = {"loss": loss.detach(), **grads}
    assert found["ours"].keys() >= found["theirs"].keys() and len(found["theirs"]) > 50
    for key, value in found["ours"].items():
        expected = found["theirs"].get(key, torch.zeros_like(value))  # padding that is not used
        torch.testing.assert_close(value, expected, atol=1e-10, rtol=1e-6, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize(
    "changes",
    [
        ("MODEL.CATSEG.WINDOWS.ENABLED", False),
        ("MODEL.CATSEG.IGNORED", "excluded"),
        ("MODEL.CATSEG.BACKGROUND", "threshold"),
        ("MODEL.CATSEG.ATTENTION", "full"),
        ("MODEL.VOCABULARY.SYNONYMS", "mean"),
    ],
)
def test_options_that_the_original_lacks_are_refused(changes):
    with pytest.raises(ConfigurationError, match="reference"):
        ReferenceCATSeg(make(5, *changes))


def test_labels_that_differ_beyond_ties_are_told():
    labels, other = torch.tensor([[0, 1]]), torch.tensor([[0, 2]])
    scores = torch.tensor([[0.5, 0.5]])
    assert segmentation_inference.differing(labels, other, scores, scores + 1e-6) == 1
    with pytest.raises(AssertionError, match="labels differ"):
        segmentation_inference.differing(labels, other, scores, scores + 1e-3)


def test_both_scripts_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    report = segmentation_inference.main(["--quick", "--device", "cpu", "--classes", "20"])
    assert [row["way"] for row in report["rows"]] == ["ours", "CAT-Seg"]
    assert all(row["seconds"] > 0 and row["logits_apart"] < 1e-4 for row in report["rows"])
    assert json.loads((tmp_path / "output/benchmarks/segmentation_inference.json").read_text()) == report
    report = segmentation_training.main(["--quick", "--device", "cpu"])
    assert [row["way"] for row in report["rows"]] == ["ours", "full", "CAT-Seg"]
    assert all(row["text"] > 0 and row["seconds"] > 0 for row in report["rows"])
