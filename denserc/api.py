"""Loading dense encoders and open-vocabulary models from Python, each from one file."""

import zipfile
from importlib.resources import files
from pathlib import Path

from . import detection as _detectors  # noqa: F401  (registers the meta-architectures that a checkpoint may name)
from . import segmentation as _segmenters  # noqa: F401
from .config import get_denserc_config, key_rules
from .construction import DenseEncoder, load_checkpoint
from .engine import resolve_device
from .openvocab import OpenVocabularyModel, model_from_checkpoint
from .openvocab.portable import is_portable
from .structures import CheckpointError

PACKAGED = {"miniature": "model_zoo/miniature.safetensors"}
"""Name -> path inside the package, of the models that are installed with it."""


def load(path: str | Path, *, device: str = "cpu") -> DenseEncoder:
    """Load the dense encoder of a `denserc.safetensors`, in eval mode.

    The caller resizes images to any height and width that are multiples of `encoder.patch_size`.
    `denserc.construction.load_checkpoint` also loads the text tower of the same file.

    Example::

        encoder = denserc.load("denserc.safetensors")
        images = encoder.tower.pixels.normalize(images)  # images: (B, 3, H, W) RGB in 0..1
        features = encoder(images)                       # (B, E, H / patch, W / patch)

    Args:
        path: File written by the distillation or by `denserc convert`.
        device: "auto", or a device of PyTorch.

    Raises:
        CheckpointError: The file is absent or is not a DenseRC checkpoint.
        WeightsMismatchError: Its tensors do not fit the encoder that it names.
    """
    if zipfile.is_zipfile(path):  # a file of torch.save
        raise CheckpointError(
            f"{path} is a file of torch.save, and denserc.load reads the dense encoder of a denserc.safetensors. A "
            "detector's checkpoint goes to denserc.load_model or denserc.Predictor."
        )
    if is_portable(path):
        raise CheckpointError(
            f"{path} holds a whole model, and denserc.load reads the dense encoder of a denserc.safetensors. Give "
            "it to denserc.load_model or denserc.Predictor."
        )
    return load_checkpoint(path).encoder.eval().to(resolve_device(device))


def load_model(source: str | Path, *, device: str = "cpu", cache_dir: str | Path | None = None) -> OpenVocabularyModel:
    """Load an open-vocabulary model from its checkpoint, in eval mode. Call `set_vocabulary` next.

    A packaged model, and other portable files that include a vocabulary, use that until another is set.

    The stored configuration names the meta-architecture, so one of your own that is registered with Detectron2's
    META_ARCH_REGISTRY loads as well. The model takes Detectron2's inputs, already resized; `denserc.Predictor` takes
    photographs.

    Args:
        source: Path of a checkpoint or of a portable file, or name of a packaged model: "miniature" detects in the
            miniature's drawn scenes.
        device: "auto", or a device of PyTorch.
        cache_dir: Folder that keeps text embeddings between runs; None to embed names anew.

    Raises:
        CheckpointError: The file is absent, of another kind, or carries no configuration.
        WeightsMismatchError: Its weights do not fit its configuration.
    """
    path = Path(source)
    if not path.exists():
        if str(source) not in PACKAGED:
            raise CheckpointError(
                f"There is no model checkpoint at {source}, and no packaged model has that name. Packaged models: "
                f"{', '.join(sorted(PACKAGED))}. projects/FViT/train_net.py writes model_final.pth."
            )
        path = Path(str(files(__package__).joinpath(PACKAGED[str(source)])))
    return model_from_checkpoint(
        path, get_denserc_config(), keys=key_rules(), device=str(resolve_device(device)), cache_dir=cache_dir
    )
