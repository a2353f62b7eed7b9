"""Keys of SOLVER, for the distillation and for every meta-architecture; Detectron2's own keep their meaning.

Read of Detectron2's: SOLVER.IMS_PER_BATCH (images per step, over all processes and accumulated batches), BASE_LR,
WEIGHT_DECAY, MAX_ITER, WARMUP_ITERS, CHECKPOINT_PERIOD, AMP.ENABLED and CLIP_GRADIENTS; the meta-architectures also
read LR_SCHEDULER_NAME, STEPS, GAMMA and the other keys of Detectron2's schedulers.
"""

from collections.abc import Mapping

from detectron2.config import CfgNode, get_cfg

from ..structures import ConfigurationError, Key, add_keys, choose, flatten
from .runtime import Precision
from .sharding import Sharding
from .solver import ExportedWeights, RateScaling

KEYS = (
    Key(
        "SOLVER.AMP.PRECISION",
        "fp16",
        "Autocast dtype with SOLVER.AMP.ENABLED; fp16 needs CUDA and scales the gradient. Weights and losses are "
        "float32, and a step whose fp16 gradient overflows is skipped, counted and logged.",
        choices=("fp16", "bf16"),
    ),
    Key(
        "SOLVER.BETAS",
        [0.9, 0.999],
        "AdamW's betas; the distillation uses (0.9, 0.98).",
        minimum=0,
        below=1,
        lengths=(2,),
    ),
    Key("SOLVER.EPS", 1e-8, "AdamW's epsilon; the distillation uses 1e-6.", minimum=0),
    Key(
        "SOLVER.ACCUMULATE",
        1,
        "Forward passes whose gradients are added up for one step; IMS_PER_BATCH is divided among them.",
        minimum=1,
    ),
    Key(
        "SOLVER.LR_SCALING",
        "none",
        "Peak learning rate: BASE_LR (none), BASE_LR * b (linear) or BASE_LR * sqrt(b) (sqrt), where b is "
        "IMS_PER_BATCH / REFERENCE_BATCH. MAX_ITER, STEPS and WARMUP_ITERS stay numbers of steps.",
        choices=RateScaling,
    ),
    Key("SOLVER.REFERENCE_BATCH", 64, "Images per step that BASE_LR was chosen for.", minimum=1),
    Key(
        "SOLVER.EMA.DECAY",
        0.0,
        "Decay of a moving average of what is trained, updated after each step; 0: no average.",
        minimum=0,
        below=1,
    ),
    Key(
        "SOLVER.EMA.EXPORT",
        "average",
        "Weights that are evaluated and exported where there is an average. Training continues from the others.",
        choices=ExportedWeights,
    ),
    Key(
        "SOLVER.SHARDING",
        "none",
        "Sharding over processes: fsdp gives each a part of the trained weights, their gradients and the optimizer "
        "state. Steps and checkpoints do not depend on it.",
        choices=Sharding,
    ),
    # Detectron2's default clips single values, which no training of ours does.
    Key(
        "SOLVER.CLIP_GRADIENTS.CLIP_TYPE",
        "full_model",
        "Norm of the gradient of all parameters together.",
        choices=("full_model", "norm", "value"),
    ),
)


def add_solver_config(cfg: CfgNode) -> None:
    """Add the keys of SOLVER that both trainings share."""
    add_keys(cfg, KEYS)


def configured_precision(cfg: CfgNode) -> Precision:
    """SOLVER.AMP: float32 unless ENABLED, otherwise PRECISION."""
    precision = choose(Precision, cfg.SOLVER.AMP.PRECISION, "SOLVER.AMP.PRECISION")
    return precision if cfg.SOLVER.AMP.ENABLED else Precision.FP32


def configured_clip_norm(cfg: CfgNode) -> float | None:
    """Largest 2-norm of the gradient of all parameters together; None without SOLVER.CLIP_GRADIENTS.ENABLED.

    Raises:
        ConfigurationError: Another way of clipping; Detectron2's "value" and "norm" limit every parameter separately.
    """
    settings = cfg.SOLVER.CLIP_GRADIENTS
    if not settings.ENABLED:
        return None
    if settings.CLIP_TYPE != "full_model" or settings.NORM_TYPE != 2.0 or settings.CLIP_VALUE <= 0:
        raise ConfigurationError(
            f"SOLVER.CLIP_GRADIENTS has CLIP_TYPE {settings.CLIP_TYPE!r}, NORM_TYPE {settings.NORM_TYPE}, CLIP_VALUE "
            f"{settings.CLIP_VALUE}. The 2-norm of the whole gradient is limited: set CLIP_TYPE full_model, NORM_TYPE "
            "2.0 and a CLIP_VALUE above 0, or ENABLED False."
        )
    return settings.CLIP_VALUE


def images_per_forward(cfg: CfgNode, processes: int) -> int:
    """SOLVER.IMS_PER_BATCH divided among processes and SOLVER.ACCUMULATE.

    Raises:
        ConfigurationError: It cannot be divided.
    """
    total, accumulate = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATE
    if accumulate < 1 or total < 1 or total % (processes * accumulate):
        raise ConfigurationError(
            f"SOLVER.IMS_PER_BATCH = {total} cannot be divided among {processes} processes times SOLVER.ACCUMULATE = "
            f"{accumulate}."
        )
    return total // (processes * accumulate)


def refuse_ignored(cfg: CfgNode, ignored: Mapping[str, str]) -> None:
    """Refuse keys of Detectron2 that a training does not read, where they differ from Detectron2's default.

    Args:
        ignored: {key: what to do instead, a sentence}.

    Raises:
        ConfigurationError: One of them is set; the message names the remedy.
    """
    given, default = flatten(cfg), flatten(get_cfg())
    for key, instead in ignored.items():
        if given[key] != default[key]:
            raise ConfigurationError(
                f"{key} is {given[key]!r}, but it has no effect here. {instead} Leave {key} at {default[key]!r}."
            )
