"""A trained detector from its checkpoint."""

from pathlib import Path

from detectron2.config import get_cfg

from ..construction import add_encoder_config
from ..construction.config import KEYS as ENCODER_KEYS
from ..openvocab.checkpoint import model_from_checkpoint
from ..openvocab.config import KEYS as OPENVOCAB_KEYS
from ..openvocab.config import add_openvocab_config
from .config import KEYS, add_detection_config
from .modeling.meta_arch import FViT


def load_detector(path: str | Path, *, device: str = "cpu") -> FViT:
    """`denserc.load_model` for code that may import only the detector's packages.

    Raises:
        CheckpointError: The file is absent, of another kind, or carries no configuration.
        WeightsMismatchError: Its weights do not fit its configuration.
    """
    cfg = get_cfg()
    for add in (add_encoder_config, add_openvocab_config, add_detection_config):
        add(cfg)
    return model_from_checkpoint(path, cfg, keys=(*ENCODER_KEYS, *OPENVOCAB_KEYS, *KEYS), device=device)
