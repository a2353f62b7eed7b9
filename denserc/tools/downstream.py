"""Downstream measures of an encoder: a segmenter or a detector trained over its checkpoint, or dense features only.

Each measure is one configuration run by the engine of its task, so the miniature and the full size share this code.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from ..config import read_config
from ..detection import engine as detection
from ..encoders.miniature import MINIATURE
from ..evaluation import build_evaluator
from ..model_zoo import find_config_file, get_config_file
from ..segmentation import engine as segmentation
from ..structures import ConfigurationError, cached_result
from ..structures.files import file_digest


@dataclass(frozen=True)
class Task:
    """A kind of downstream measure.

    Args:
        run: Engine: (cfg, evaluator_factory=, resume=, eval_only=) -> {data set: {evaluator's task: metrics}}.
        trained: Whether something is trained over the encoder.
        metrics: Groups of metric names in order of preference; of each data set the first complete group is reported.
        miniature: Packaged config for encoders of the miniature world.
    """

    run: Callable[..., dict[str, dict]]
    trained: bool
    metrics: tuple[tuple[str, ...], ...]
    miniature: str


_MIOU = (("mIoU_seen", "mIoU_unseen"), ("mIoU",))
TASKS = {
    "segmentation": Task(segmentation.run, True, _MIOU, "miniature/catseg"),
    "dense_segmentation": Task(segmentation.run, False, _MIOU, "miniature/dense_segmentation"),
    "detection": Task(detection.run, True, (("AP50_novel",), ("AP_rare",), ("AP50_all",)), "miniature/fvit"),
}


def read_configs(files: Mapping[str, str], *, encoder: str) -> dict[str, CfgNode]:
    """Read the configurations of downstream measures.

    Args:
        files: Key of TASKS -> file or name of a packaged config; "" for the default.
        encoder: MODEL.ENCODER.NAME of the encoders to be measured; that of the miniature has default configs.

    Raises:
        ConfigurationError: No file for another encoder, or one that cannot be read or run.
    """
    absent = [name for name, file in files.items() if not file]
    if absent and encoder != MINIATURE:
        options = " and ".join(f"--{name.replace('_', '-')}-config" for name in absent)
        raise ConfigurationError(f"Measures of {encoder} have no default config: give {options}.")
    configs = {
        name: read_config(find_config_file(file or TASKS[name].miniature), resolve=get_config_file)
        for name, file in files.items()
    }
    check_configs(configs)
    return configs


def check_configs(configs: Mapping[str, CfgNode]) -> None:
    """Check that every downstream configuration can be run, before hours of distillation.

    Raises:
        ConfigurationError: An unknown task, or a configuration without data sets.
    """
    for name, cfg in configs.items():
        if name not in TASKS:
            raise ConfigurationError(f"{name!r} is not a downstream measure; known are {sorted(TASKS)}.")
        required = ("TEST", "TRAIN") if TASKS[name].trained else ("TEST",)
        absent = [f"DATASETS.{key}" for key in required if not cfg.DATASETS[key]]
        if absent:
            raise ConfigurationError(f"The configuration of the measure {name!r} names no set in {absent}.")


def measure_downstream(name: str, base: CfgNode, checkpoint: Path, seed: int, output: Path) -> dict[str, float]:
    """Measure an encoder by one task; a finished measurement is read from disk.

    Args:
        name: Key of TASKS.
        base: Configuration of the task. OUTPUT_DIR, SEED, MODEL.WEIGHTS and MODEL.ENCODER.CHECKPOINT are set here.
        checkpoint: Encoder, as written by a distillation.
        seed: Seed of training.
        output: Folder of the encoder's measurements. Settings and the encoder's content determine the subfolder.

    Returns:
        {"<name>/<data set>/<metric>": score in percent}, for every set of DATASETS.TEST.

    Raises:
        ConfigurationError: A set whose evaluator gives none of the task's metrics.
    """
    task = TASKS[name]
    cfg = base.clone()
    cfg.defrost()
    cfg.SEED = seed
    cfg.MODEL.WEIGHTS = cfg.MODEL.ENCODER.CHECKPOINT = cfg.OUTPUT_DIR = ""
    settings = f"{name} {cfg.dump()} {file_digest(checkpoint)}"  # content, not path: the folder may be moved
    folder = output / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:16]}"
    cfg.MODEL.ENCODER.CHECKPOINT = str(checkpoint)
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()

    def compute() -> dict:
        return {
            "metrics": task.run(
                cfg, evaluator_factory=build_evaluator, resume=task.trained, eval_only=not task.trained
            )
        }  # fmt: skip

    metrics = cached_result(folder / "result.json", settings, compute)["metrics"]
    return {
        f"{name}/{dataset}/{metric}": score
        for dataset in cfg.DATASETS.TEST
        for metric, score in _reported(name, dataset, metrics[dataset]).items()
    }


def _reported(name: str, dataset: str, results: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """The first complete group of the task's metrics among an evaluator's results."""
    found = {metric: score for metrics in reversed(results.values()) for metric, score in metrics.items()}
    for group in TASKS[name].metrics:
        if all(metric in found for metric in group):
            return {metric: found[metric] for metric in group}
    raise ConfigurationError(
        f"The measure {name!r} expects one of the metrics {TASKS[name].metrics} for {dataset}; its evaluator gives "
        f"{sorted(found)}. Choose DATASETS.TEST of the measure's configuration accordingly."
    )
