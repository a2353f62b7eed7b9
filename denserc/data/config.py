"""Config keys of the data, beside Detectron2's own DATASETS.TRAIN and .TEST."""

from pathlib import Path

from detectron2.config import CfgNode

from ..structures import Key
from .datasets.builtin import register_all
from .datasets.registration import register_from_yaml
from .images.tolerance import KEY

KEYS = (
    Key(
        "DATASETS.REGISTER",
        (),
        "YAML descriptions of own data sets (datasets/README.md), registered before TRAIN and TEST are looked up: "
        "DATASETS.REGISTER \"('my/birds.yaml',)\" adds birds_train and birds_val.",
        kind=str,
    ),
    Key(
        KEY,
        0.01,
        "Share of a set's images that may be unreadable, in training and evaluation: they are named, counted and "
        "skipped, and an evaluation counts their objects as missed. One image always may, unless the share is 0.",
        minimum=0,
        maximum=1,
    ),
)


def register_configured(cfg: CfgNode, root: str | Path) -> None:
    """Register the built-in data sets below `root` and those that DATASETS.REGISTER describes.

    Raises:
        ConfigurationError, DataError: See register_from_yaml.
    """
    register_all(root)
    for description in cfg.DATASETS.REGISTER:
        register_from_yaml(description)
