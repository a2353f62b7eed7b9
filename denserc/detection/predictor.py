"""A trained detector from one file, ready to be asked."""

from pathlib import Path

import yaml
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model

from ..construction import add_encoder_config
from ..openvocab.checkpoint import METADATA, ModelCheckpointer, read_checkpoint
from ..openvocab.config import add_openvocab_config
from ..structures import CheckpointError
from .config import add_detection_config
from .modeling.meta_arch import FViT


def load_detector(path: str | Path, *, device: str = "cpu") -> FViT:
    """The detector of a checkpoint written by the engine, in eval mode; call `set_vocabulary` on it next.

    Example::

        model = load_detector("output/fvit/model_final.pth")
        model.set_vocabulary(["red cup", "striped ball"])
        detections = model([{"image": image}])[0]["instances"]  # image: (3, h, w) RGB in 0..255

    Raises:
        CheckpointError: the file is absent, of another kind, or carries no configuration.
        WeightsMismatchError: its weights do not fit its configuration.
    """
    metadata = read_checkpoint(path)[METADATA]
    if "config" not in metadata:
        raise CheckpointError(
            f"{path} carries no configuration; build the model from a config file with MODEL.WEIGHTS set to this path."
        )
    cfg = get_cfg()
    add_encoder_config(cfg)
    add_openvocab_config(cfg)
    add_detection_config(cfg)
    cfg.set_new_allowed(True)  # keys of the other project, which do not matter here
    cfg.merge_from_other_cfg(CfgNode(yaml.safe_load(metadata["config"])))
    cfg.MODEL.WEIGHTS = str(path)
    cfg.MODEL.DEVICE = device
    cfg.MODEL.ENCODER.CHECKPOINT = ""  # the encoder is in the detector's own file
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()  # they need not exist here
    model = build_model(cfg)
    ModelCheckpointer(model).load(str(path))
    model.metadata["config"] = metadata["config"]
    return model.eval()
