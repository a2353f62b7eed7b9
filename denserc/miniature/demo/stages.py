"""The stages of the demo. Each runs a project's engine with a miniature config and keeps its result on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from ...config import read_config
from ...construction import build_dense_model, save_checkpoint
from ...data.datasets.builtin import register_miniature
from ...detection import engine as detection
from ...distillation import engine as distillation
from ...distillation.export import PRODUCT_NAME
from ...distillation.target_cache import TargetMemory
from ...evaluation import build_evaluator, evaluate_dense_model
from ...structures import DataError, cached_result
from ...structures.files import file_digest
from ..train_clip import Recipe, train_clip
from ..write_world import LAYOUT, Sizes, write_world

DETECTOR_NAME = "model_final.pth"
VAL, TRANSFER = "miniature_ov_coco_val", "miniature_transfer_val"


@dataclass(frozen=True)
class Contender:
    """One encoder of the comparison.

    Args:
        key: Name of its folder.
        title: Title of its row in the tables.
        config: Distillation config, relative to configs/; None for the CLIP without distillation.
        construction: Name of the construction, for an encoder that is not distilled.
    """

    key: str
    title: str
    config: str | None = None
    construction: str = "clipself"


CONTENDERS = (
    Contender("clip", "CLIP, undistilled"),
    Contender("clipself", "CLIPSelf", "miniature/distill_clipself.yaml"),
    Contender("denserc", "DenseRC", "miniature/distill_denserc.yaml"),
)


@dataclass(frozen=True)
class Places:
    """Folders that the demo reads and writes.

    Args:
        output: Output folder of the demo.
        configs: Folder of the configs, see `denserc.model_zoo.configs_folder`.
        weights: Weights file of the miniature CLIP; "" for the packaged one.
    """

    output: Path
    configs: Path
    weights: str = ""

    @property
    def world(self) -> Path:
        """The miniature data sets."""
        return self.output / "world"

    def folder(self, seed: int, contender: Contender, stage: str) -> Path:
        """Output folder of one stage."""
        return self.output / f"seed{seed}" / contender.key / stage

    def encoder(self, seed: int, contender: Contender) -> Path:
        """The contender's DenseRC checkpoint."""
        return self.folder(seed, contender, "encoder") / PRODUCT_NAME

    def detector(self, seed: int, contender: Contender) -> Path:
        """The contender's detector."""
        return self.folder(seed, contender, "detector") / DETECTOR_NAME


def prepare_world(places: Places, *, seed: int = 0, sizes: Sizes | None = None) -> None:
    """Write the data sets unless they are there in the present layout, and register them."""
    sizes = sizes or Sizes()

    def compute() -> dict:
        write_world(places.world, seed=seed, sizes=sizes)
        return {}

    cached_result(places.world / "world.json", f"layout {LAYOUT}, {seed} {sizes}", compute)
    register_miniature(places.world)


def train_miniature_clip(folder: Path, recipe: Recipe) -> Path:
    """Train the miniature CLIP anew; returns its weights."""
    cached_result(folder / "clip.json", str(recipe), lambda: train_clip(folder, recipe))
    return folder / "miniature_clip.safetensors"


def make_encoders(
    places: Places, contenders: Sequence[Contender], seed: int, overrides: list | None = None
) -> dict[str, dict]:
    """Results of `make_encoder` by the contenders' keys.

    Distillations of one seed draw the same crops, so the teacher encodes them once for all of these contenders.
    """
    memory = TargetMemory()
    return {c.key: make_encoder(places, c, seed, overrides, memory=memory) for c in contenders}


def make_encoder(
    places: Places,
    contender: Contender,
    seed: int,
    overrides: list | None = None,
    *,
    memory: TargetMemory | None = None,
) -> dict:
    """Distill (or only save) a contender's encoder and classify regions with it.

    Args:
        memory: Features of the frozen models, shared by the distillations of one seed.

    Returns:
        {"regions": the metrics of region classification, "seconds": of training and evaluation}
    """
    folder = places.folder(seed, contender, "encoder")
    cfg = stage_config(places, contender.config or CONTENDERS[-1].config, folder, seed, overrides)

    def compute() -> dict:
        if contender.config:
            results = distillation.run(cfg, evaluator_factory=evaluate_dense_model, memory=memory)
        else:
            plain = cfg.clone()
            plain.defrost()
            plain.MODEL.CONSTRUCTION.NAME = contender.construction
            plain.TEST.REGIONS.CROPS = True
            save_checkpoint(places.encoder(seed, contender), build_dense_model(plain))
            results = distillation.run(plain, eval_only=True, evaluator_factory=evaluate_dense_model)
        return {"regions": results["region_classification"]}

    return cached_result(
        folder / "result.json", f"{contender.construction} {cfg.dump()} {file_digest(places.weights)}", compute
    )


def make_detector(places: Places, contender: Contender, seed: int, overrides: list | None = None) -> dict:
    """Train a detector over a contender's frozen encoder on base classes; evaluate it on both domains.

    Returns:
        {"detection": metrics on the main domain, "transfer": metrics on the other, "seconds"}
    """
    folder = places.folder(seed, contender, "detector")
    encoder = places.encoder(seed, contender)
    settings = ["MODEL.ENCODER.CHECKPOINT", str(encoder), "DATASETS.TEST", (VAL, TRANSFER)]
    cfg = stage_config(places, "miniature/fvit.yaml", folder, seed, settings, overrides)

    def compute() -> dict:
        results = detection.run(cfg, evaluator_factory=build_evaluator)
        return {"detection": results[VAL]["ov_coco"], "transfer": results[TRANSFER]["coco"]}

    return cached_result(folder / "result.json", f"{cfg.dump()} {file_digest(encoder)}", compute)


def find_config(places: Places, name: str) -> Path:
    """Path of a config file below `places.configs`; DataError if it is absent."""
    path = places.configs / name
    if not path.is_file():
        raise DataError(f"There is no config {path}; the demo needs a folder with the packaged configs' names.")
    return path


def stage_config(places: Places, name: str, folder: Path, seed: int, *overrides: list | None) -> CfgNode:
    """Configuration of one stage.

    Args:
        name: Config file below `places.configs`.
        folder: Folder for OUTPUT_DIR.
        overrides: Lists of config keys and values, later ones win.

    Raises:
        DataError: The folder of configs does not have the file.
    """
    path = find_config(places, name)
    settings = ["OUTPUT_DIR", str(folder), "SEED", seed]
    if "MODEL.ENCODER.CHECKPOINT" not in (overrides[0] or []):
        settings += ["MODEL.ENCODER.WEIGHTS", places.weights]
    return read_config(path, [*settings, *(word for more in overrides for word in more or [])])
