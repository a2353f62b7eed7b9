"""The package's public names: quick to import, and models from one file each."""

import subprocess
import sys

import pytest
import torch
from detectron2.config import configurable
from detectron2.data import transforms as T
from detectron2.modeling import META_ARCH_REGISTRY, build_model
from detectron2.structures import Boxes, Instances, pairwise_iou

import denserc
from denserc import api
from denserc.config import get_denserc_config
from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
from denserc.detection import FViT, load_detector
from denserc.miniature.demo.pictures import fresh_scenes, truth_of
from denserc.miniature.world import CLASS_NAMES, NOVEL_NAMES, Domain
from denserc.openvocab import ClassEmbeddings, ModelCheckpointer, OpenVocabularyModel, build_towers
from denserc.structures import CheckpointError, ConfigurationError

QUICK = """
import sys, time
start = time.perf_counter()
import denserc
seconds = time.perf_counter() - start
assert {"Predictor", "load", "load_model", "__version__"} <= set(dir(denserc))
assert not {"torch", "numpy", "detectron2", "PIL"} & set(sys.modules), sorted(sys.modules)
print(seconds)
"""


def test_importing_the_package_is_quick_and_imports_no_torch():
    done = subprocess.run([sys.executable, "-c", QUICK], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 0.2


def test_public_names_are_those_of_their_modules():
    assert denserc.load_model is api.load_model and set(denserc.__all__) <= set(dir(denserc))
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        _ = denserc.load_everything


@pytest.fixture()
def encoder_file(miniature, tmp_path):
    encoder = DenseEncoder(miniature.image, Construction.named("clipself"))
    save_checkpoint(tmp_path / "denserc.safetensors", DenseModel(encoder, miniature.text, miniature.logit_scale))
    return tmp_path / "denserc.safetensors", encoder


def test_load_gives_the_dense_encoder_in_eval_mode(encoder_file):
    path, encoder = encoder_file
    loaded = denserc.load(path)
    images = torch.randn(1, 3, 32, 48)
    assert not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(images), encoder.eval()(images))


def test_each_loader_names_the_other_for_the_other_file(encoder_file, detector, tmp_path):
    with pytest.raises(CheckpointError, match=r"denserc\.load_model"):
        denserc.load(detector)
    with pytest.raises(CheckpointError, match=r"denserc\.load reads a dense encoder"):
        denserc.load_model(encoder_file[0])
    with pytest.raises(CheckpointError, match="no DenseRC checkpoint at"):
        denserc.load(tmp_path / "absent.safetensors")


def test_a_missing_model_lists_the_packaged_ones(monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match=r"no model checkpoint at tiny.*Packaged models: miniature\."):
        denserc.load_model("tiny")
    monkeypatch.setattr(api, "PACKAGED", {"toy": "models/toy.pth"})
    with pytest.raises(CheckpointError, match=r"Packaged models: toy\."):
        denserc.load_model("tiny")


def test_a_packaged_model_loads_by_its_name(monkeypatch, detector):
    monkeypatch.setattr(api, "PACKAGED", {"toy": str(detector)})
    assert isinstance(denserc.load_model("toy"), FViT)


def test_the_packaged_miniature_works_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scene = fresh_scenes(1, Domain.MAIN, things=3)[0]
    predictor = denserc.Predictor("miniature", device="cpu")
    assert predictor.names == tuple(CLASS_NAMES) and predictor.vocabulary.novel == frozenset(NOVEL_NAMES)
    truth, found = truth_of(scene), predictor(scene.image)
    overlaps = pairwise_iou(Boxes(torch.as_tensor(truth.boxes).float()), found.pred_boxes)
    assert overlaps.amax(dim=1).median() > 0.5  # most things have a box
    named = denserc.Predictor("miniature", names=["red thing", "grass"], device="cpu")
    assert named.names == ("red thing", "grass") and predictor.names == tuple(CLASS_NAMES)
    assert "drawn world" in named.model.metadata["description"] and not list(tmp_path.iterdir())


def test_load_model_and_load_detector_are_one_code_path(detector):
    models = [denserc.load_model(detector), load_detector(detector)]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert [str(model) for model in models][0] == str(models[1]) and not models[0].training


def test_a_loaded_model_writes_nothing_and_has_no_vocabulary(detector, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = denserc.load_model(detector)
    assert model.vocabulary is None
    model.set_vocabulary(["red cup"])
    assert not list(tmp_path.iterdir())
    cached = denserc.load_model(detector, cache_dir=tmp_path / "cache")
    cached.set_vocabulary(["red cup"])
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_files_of_version_0_1_load(detector, tmp_path):
    content = torch.load(detector, weights_only=True)
    content["fvit"] = content.pop("denserc")
    torch.save(content, tmp_path / "old.pth")
    assert isinstance(denserc.load_model(tmp_path / "old.pth"), FViT)


@META_ARCH_REGISTRY.register()
class WholePicture(OpenVocabularyModel):
    """Classifies the mean of the dense map; its one detection is the whole picture."""

    @configurable
    def __init__(self, *, encoder: DenseEncoder, sharpness: float, **options):
        super().__init__(**options)
        self.encoder = encoder
        self._classes = ClassEmbeddings(embed_dim=encoder.embed_dim, background=False)
        self.scale = torch.nn.Parameter(torch.tensor(sharpness))

    @classmethod
    def from_config(cls, cfg):
        towers, metadata = build_towers(cfg)
        options = cls.options_from_config(cfg) | {"text_tower": towers.text, "metadata": metadata}
        if cfg.MODEL.WHOLE.RESIZE:
            options["test_augmentations"] = [T.Resize((32, 32))]
        return {"encoder": towers.encoder, "sharpness": cfg.MODEL.WHOLE.SHARPNESS, **options}

    @property
    def classes(self):
        return self._classes

    def forward(self, inputs):
        self.require_vocabulary()
        outputs = []
        for one in inputs:
            image = (one["image"].to(self.device).float() - self.pixel_mean) / self.pixel_std
            mean = torch.nn.functional.normalize(self.encoder(image[None]).mean(dim=(2, 3)), dim=1)
            score, label = (self.scale * mean @ self.classes.require().T).softmax(dim=1).max(dim=1)
            h, w = one["height"], one["width"]
            boxes = Boxes(torch.tensor([[0.0, 0.0, w, h]]))
            outputs.append({"instances": Instances((h, w), pred_boxes=boxes, scores=score, pred_classes=label)})
        return outputs


def whole_picture_file(path, *, resize: bool):
    cfg = get_denserc_config()
    cfg.set_new_allowed(True)
    cfg.MODEL.WHOLE = type(cfg)({"SHARPNESS": 7.0, "RESIZE": resize})
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.DEVICE = "WholePicture", "cpu"
    cfg.MODEL.ENCODER.NAME, cfg.MODEL.ENCODER.RANDOM_INIT = "DenseRC-Miniature", True
    cfg.MODEL.VOCABULARY.TEMPLATES, cfg.INPUT.FORMAT = "plain", "RGB"
    model = build_model(cfg)
    model.metadata["config"] = cfg.dump()
    ModelCheckpointer(model, str(path.parent)).save_model(path.stem)
    return path


def test_an_architecture_of_ones_own_loads_and_predicts(tmp_path):
    predictor = denserc.Predictor(whole_picture_file(tmp_path / "own.pth", resize=True), ["cup", "ball"], threshold=0)
    assert isinstance(predictor.model, WholePicture) and predictor.model.scale == 7.0
    found = predictor(torch.randint(0, 256, (3, 50, 70), dtype=torch.uint8))
    assert found.image_size == (50, 70) and found.class_names[0] in ("cup", "ball")
    assert predictor.draw(torch.zeros(3, 50, 70, dtype=torch.uint8)).size == (560, 400)


def test_an_architecture_that_does_not_resize_is_refused(tmp_path):
    predictor = denserc.Predictor(whole_picture_file(tmp_path / "own.pth", resize=False), ["cup"])
    with pytest.raises(ConfigurationError, match="WholePicture does not define how pictures are resized"):
        predictor(torch.zeros(3, 50, 70, dtype=torch.uint8))
