"""A second meta-architecture of thirty lines, over the shared code of `openvocab`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.data import DatasetCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from denserc.data.datasets.registration import register_open_vocab_dataset
from denserc.data.images.reading import read_rgb
from denserc.detection import load_detector
from denserc.openvocab import ClassEmbeddings, Mappers, ModelCheckpointer, OpenVocabularyModel, build_towers, run
from denserc.openvocab.engine import build
from denserc.structures import CheckpointError, ConfigurationError
from tests.detection.squares import CLASSES, assert_same_weights, saved, squares_config, write_squares

SIDE = 32


@META_ARCH_REGISTRY.register()
class PixelClassifier(OpenVocabularyModel):
    """A learned 1 x 1 convolution over the frozen dense map, compared with the text embeddings."""

    best_metrics = ("pixels/accuracy",)

    @configurable
    def __init__(self, *, encoder: nn.Module, **options):
        super().__init__(**options)
        self.encoder = encoder.requires_grad_(False).eval()
        self.adapter = nn.Conv2d(encoder.embed_dim, encoder.embed_dim, 1)
        self.class_embeddings = ClassEmbeddings(embed_dim=encoder.embed_dim, background=False)

    @classmethod
    def from_config(cls, cfg) -> dict:
        towers, metadata = build_towers(cfg)
        parts = {"encoder": towers.encoder, "text_tower": towers.text, "metadata": metadata}
        return {**cls.options_from_config(cfg), **parts}

    @property
    def classes(self) -> ClassEmbeddings:
        return self.class_embeddings

    def forward(self, batched_inputs: list[dict]):
        self.require_vocabulary()
        images = torch.stack([one["image"] for one in batched_inputs]).to(self.device)
        with torch.no_grad():
            dense = self.encoder.eval()((images.float() - self.pixel_mean) / self.pixel_std)
        features = F.normalize(self.adapter(dense), dim=1)
        logits = 20.0 * torch.einsum("behw,ce->bchw", features, self.classes.require())
        if not self.training:
            return [{"sem_seg": one} for one in logits.argmax(dim=1)]
        labels = torch.stack([one["labels"] for one in batched_inputs]).to(self.device)
        return {"loss_pixels": F.cross_entropy(logits, labels, ignore_index=255)}


def squares_mapper(cfg):
    """The picture, resized, and the label of each patch: that of the box over its center."""

    def mapper(record: dict) -> dict:
        picture = torch.from_numpy(read_rgb(record["file_name"])).permute(2, 0, 1).float()
        (h, w), patches = picture.shape[-2:], SIDE // 8
        labels = np.full((patches, patches), 255, dtype=np.int64)
        centers = (np.arange(patches) + 0.5) / patches
        for one in record["annotations"]:
            x, y, box_w, box_h = one["bbox"]
            inside_y = (centers * h >= y) & (centers * h < y + box_h)
            inside_x = (centers * w >= x) & (centers * w < x + box_w)
            labels[np.ix_(inside_y, inside_x)] = one["category_id"]
        image = F.interpolate(picture[None], size=(SIDE, SIDE))[0]
        if np.random.random() < 0.5:  # a draw, so that resuming has something to continue
            image, labels = image.flip(-1), labels[:, ::-1].copy()
        return {"image_id": record["image_id"], "image": image, "labels": torch.from_numpy(labels)}

    return mapper


def upright_mapper(cfg):
    """The same, never flipped."""
    mapper = squares_mapper(cfg)

    def upright(record: dict) -> dict:
        state = np.random.get_state()
        np.random.seed(0)  # its first number is above 0.5
        try:
            return mapper(record)
        finally:
            np.random.set_state(state)

    return upright


class PixelAccuracy(DatasetEvaluator):
    """Share of the labeled patches that are right, and what was predicted."""

    def __init__(self, name: str, folder: str):
        self.reset()

    def reset(self):
        self.right, self.count, self.labels = 0, 0, {}

    def process(self, inputs, outputs):
        for one, output in zip(inputs, outputs, strict=True):
            known = one["labels"] != 255
            self.right += int((output["sem_seg"].cpu() == one["labels"])[known].sum())
            self.count += int(known.sum())
            self.labels[one["image_id"]] = output["sem_seg"].sum().item()

    def evaluate(self):
        return {"pixels": {"accuracy": 100.0 * self.right / self.count, "sum": float(sum(self.labels.values()))}}


MAPPERS = Mappers(training=squares_mapper, test=upright_mapper)


@pytest.fixture()
def config(tmp_path, forget_registered):
    """make(**changes) -> a configuration of PixelClassifier on the drawn squares."""
    file = write_squares(tmp_path)
    for name in ("squares_train", "squares_val"):
        register_open_vocab_dataset(name, str(file), str(tmp_path), base=CLASSES[:2], novel=CLASSES[2:])

    def make(**changes):
        return squares_config(
            tmp_path,
            **{"MODEL__META_ARCHITECTURE": "PixelClassifier", "SOLVER__BASE_LR": 0.01, "SOLVER__STEPS": (), **changes},
        )

    return make


def train(cfg, **options):
    torch.manual_seed(0)  # the random initial weights
    return run(cfg, MAPPERS, **{"evaluator_factory": PixelAccuracy, **options})


def test_it_trains_evaluates_and_learns(config):
    few = train(config(SOLVER__MAX_ITER=1, OUTPUT_DIR=config().OUTPUT_DIR + "_few"))
    many = train(config(SOLVER__MAX_ITER=40))
    assert many["squares_val"]["pixels"]["accuracy"] > few["squares_val"]["pixels"]["accuracy"]
    best = torch.load(Path(config().OUTPUT_DIR) / "model_best.pth", weights_only=True)["best"]
    assert best == {"metric": "pixels/accuracy", "value": many["squares_val"]["pixels"]["accuracy"], "step": 40}


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_resumed_run_is_bitwise_identical(config, tmp_path, decay):
    whole = config(SOLVER__EMA__DECAY=decay)
    results = train(whole)
    resumed = config(SOLVER__EMA__DECAY=decay, OUTPUT_DIR=str(tmp_path / "resumed"))
    shutil.copy(Path(whole.OUTPUT_DIR) / "model_0000001.pth", resumed.OUTPUT_DIR)
    (Path(resumed.OUTPUT_DIR) / "last_checkpoint").write_text("model_0000001.pth")
    assert train(resumed, resume=True) == results
    assert_same_weights(saved(whole)["model"], saved(resumed)["model"])
    start, end = saved(whole, "model_0000001")["model"], saved(whole)["model"]
    assert {key for key in end if not torch.equal(start[key], end[key])} == {"adapter.weight", "adapter.bias"}


def test_it_loads_from_its_checkpoint_with_other_names(config):
    cfg = config()
    results = train(cfg)
    path = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    again = run(config(MODEL__WEIGHTS=path), MAPPERS, evaluator_factory=PixelAccuracy, eval_only=True)
    assert again == results

    model = load_detector(path)
    assert type(model) is PixelClassifier and not model.training
    model.set_vocabulary(["red square", "violet square"])
    item = upright_mapper(cfg)(DatasetCatalog.get("squares_val")[0])
    assert set(model([item])[0]["sem_seg"].unique().tolist()) <= {0, 1}


def test_another_encoder_is_refused(config):
    cfg = config()
    train(cfg)
    content = saved(cfg)
    content["denserc"]["construction"]["num_blocks"] = 2
    other = Path(cfg.OUTPUT_DIR) / "other.pth"
    torch.save(content, other)
    with pytest.raises(CheckpointError, match="trained over the construction"):
        ModelCheckpointer(build(cfg)).load(str(other))


def test_an_architecture_of_another_kind_is_refused(config):
    with pytest.raises(ConfigurationError, match="PixelClassifier.*OpenVocabularyModel"):
        train(config(MODEL__META_ARCHITECTURE="GeneralizedRCNN"))
