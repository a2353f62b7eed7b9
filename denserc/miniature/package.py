"""The recipe of the packaged model: from the packaged CLIP to one portable file (`denserc lab package-miniature`)."""

import platform
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode

from .. import __version__
from ..api import load_model
from ..data.datasets.builtin import register_miniature
from ..detection import engine as detection
from ..distillation import engine as distillation
from ..distillation.export import PRODUCT_NAME
from ..evaluation import build_evaluator, evaluate_dense_model
from ..openvocab import save_portable
from ..structures import Vocabulary, cached_result
from ..structures.files import file_digest, write_json
from .demo.stages import DETECTOR_NAME, TRANSFER, VAL, Places, prepare_world, stage_config
from .world import CLASS_NAMES, NOVEL_NAMES
from .write_world import Sizes

NAME = "miniature"
ENCODER_CONFIG, DETECTOR_CONFIG = "miniature/packaged_distill.yaml", "miniature/packaged_fvit.yaml"
FIRST_ENCODER_CONFIG = "miniature/distill_denserc.yaml"
FIRST_DETECTOR_CONFIG = "miniature/packaged_proposals.yaml"  # its RPN proposes the regions of the distillation
DESCRIPTION = "a drawn world; photographs need a model trained on photographs"


def package_miniature(
    output: Path,
    configs: Path,
    *,
    world: Path | None = None,
    seed: int = 0,
    sizes: Sizes | None = None,
    encoder_overrides: Sequence = (),
    detector_overrides: Sequence = (),
) -> dict:
    """Make region proposals, distill, train, write the portable file and evaluate what is in it. A second call resumes.

    Args:
        output: Folder of first/ (encoder, detector, proposals), encoder/, detector/, miniature.safetensors and its
            figures, miniature.json.
        configs: Folder of the configs, see `denserc.model_zoo.configs_folder`.
        world: Folder of the miniature data sets; None writes them to `output`/world.
        seed: Seed of distillation and detector training.
        sizes: Numbers of scenes of a world that is written; None for the demo's.
        encoder_overrides, detector_overrides: Config keys and values for both trainings of each.

    Returns:
        The content of miniature.json: the figures of the file as it was written, in percent, and how it was made.
    """
    if world is None:
        prepare_world(Places(output, configs), sizes=sizes)
    else:
        register_miniature(world)
    places = Places(output, configs)
    encoder, detector = output / "encoder", output / "detector"
    proposals, steps = _proposals(places, seed, list(encoder_overrides), list(detector_overrides))
    settings = ["DISTILL.REGIONS.PROPOSALS", (str(proposals),)]
    cfg = stage_config(places, ENCODER_CONFIG, encoder, seed, settings, list(encoder_overrides))
    steps["distillation"] = cfg.SOLVER.MAX_ITER
    regions = _distilled(cfg)
    settings = ["MODEL.ENCODER.CHECKPOINT", str(encoder / PRODUCT_NAME)]
    cfg = stage_config(places, DETECTOR_CONFIG, detector, seed, settings, list(detector_overrides))
    steps["detector"] = cfg.SOLVER.MAX_ITER
    detection.run(cfg, resume=True)

    model = load_model(detector / DETECTOR_NAME)
    model.set_default_vocabulary(Vocabulary(CLASS_NAMES, novel=NOVEL_NAMES))
    file = output / f"{NAME}.safetensors"
    save_portable(file, model, description=DESCRIPTION)
    overrides = ["MODEL.WEIGHTS", str(file), "OUTPUT_DIR", str(output)]
    cfg = stage_config(places, DETECTOR_CONFIG, output, seed, [], list(detector_overrides), overrides)
    results = detection.run(cfg, eval_only=True, evaluator_factory=build_evaluator)
    found = {
        "figures": {
            "regions": regions,
            "detection": results[VAL]["ov_coco"],
            "transfer": results[TRANSFER]["coco"],
        },
        "steps": steps,
        "seed": seed,
        "bytes": file.stat().st_size,
        "sha256": file_digest(file),
        "versions": {"denserc": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    write_json(output / f"{NAME}.json", found, indent=2)
    return found


def _proposals(places: Places, seed: int, encoder_overrides: list, detector_overrides: list) -> tuple[Path, dict]:
    """File of region proposals by a first detector over the demo's encoder, and the steps of both trainings."""
    folder = places.output / "first"
    file, model = folder / "proposals.json", folder / "model.safetensors"
    encoder = stage_config(places, FIRST_ENCODER_CONFIG, folder / "encoder", seed, encoder_overrides)
    settings = ["MODEL.ENCODER.CHECKPOINT", str(folder / "encoder" / PRODUCT_NAME), "DATASETS.TEST", ()]
    detector = stage_config(places, FIRST_DETECTOR_CONFIG, folder / "detector", seed, settings, detector_overrides)
    steps = {"first_distillation": encoder.SOLVER.MAX_ITER, "first_detector": detector.SOLVER.MAX_ITER}
    if not file.is_file():
        distillation.run(encoder, resume=True)
        detection.run(detector, resume=True)
        save_portable(model, load_model(folder / "detector" / DETECTOR_NAME), description=DESCRIPTION)
        overrides = [
            "MODEL.WEIGHTS",
            str(model),
            "DATASETS.TEST",
            detector.DATASETS.TRAIN,
            "TEST.PROPOSALS.FILE",
            str(file),
        ]
        detection.run(
            stage_config(places, FIRST_DETECTOR_CONFIG, folder, seed, [], detector_overrides, overrides), eval_only=True
        )
    return file, steps


def _distilled(cfg: CfgNode) -> dict[str, float]:
    """Distill the encoder unless that is done; metrics of region classification."""

    def compute() -> dict:
        return distillation.run(cfg, resume=True, evaluator_factory=evaluate_dense_model)["region_classification"]

    found = cached_result(Path(cfg.OUTPUT_DIR) / "result.json", cfg.dump(), compute)
    return {name: value for name, value in found.items() if name != "seconds"}
