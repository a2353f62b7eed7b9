"""Loading from Python: the dense encoder and the open-vocabulary models, each from one file."""

import zipfile
from importlib.resources import files
from pathlib import Path

from . import detection as _detectors  # noqa: F401  (registers the meta-architectures that a checkpoint may name)
from . import segmentation as _segmenters  # noqa: F401
from .config import get_denserc_config
from .construction import DenseEncoder, load_checkpoint
from .engine import resolve_device
from .openvocab import OpenVocabularyModel, model_from_checkpoint
from .structures import CheckpointError

PACKAGED: dict[str, str] = {}
"""Name -> path inside the package, of the models that are installed with it."""


def load(path: str | Path, *, device: str = "cpu") -> DenseEncoder:
    """Load the dense encoder of a `denserc.safetensors`, in eval mode.

    Resizing is the caller's: any height and width that are multiples of `encoder.patch_size`. The text tower of the
    same file comes from `denserc.construction.load_checkpoint`.

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
    return load_checkpoint(path).encoder.eval().to(resolve_device(device))


def load_model(source: str | Path, *, device: str = "cpu", cache_dir: str | Path | None = None) -> OpenVocabularyModel:
    """Load an open-vocabulary model from its checkpoint, in eval mode; `set_vocabulary` comes next.

    The meta-architecture is the one that the stored configuration names, so one that is registered with
    Detectron2's META_ARCH_REGISTRY by other code loads as well.

    Its inputs are Detectron2's, resized already: `denserc.Predictor` takes photographs.

    Args:
        source: Path of a checkpoint, or name of a packaged model.
        device: "auto", or a device of PyTorch.
        cache_dir: Folder that keeps text embeddings between runs; None to embed names anew.

    Raises:
        CheckpointError: The file is absent, of another kind, or carries no configuration.
        WeightsMismatchError: Its weights do not fit its configuration.
    """
    path = Path(source)
    if not path.exists():
        if str(source) not in PACKAGED:
            known = ", ".join(sorted(PACKAGED)) or "none in this version"
            raise CheckpointError(
                f"There is no model checkpoint at {source}, and no packaged model has that name. Packaged models: "
                f"{known}. projects/FViT/train_net.py writes model_final.pth."
            )
        path = Path(str(files(__package__).joinpath(PACKAGED[str(source)])))
    if path.suffix == ".safetensors":
        raise CheckpointError(
            f"{source} is a safetensors file; a model's checkpoint, model_final.pth, was expected. "
            "denserc.load reads a dense encoder."
        )
    return model_from_checkpoint(path, get_denserc_config(), device=str(resolve_device(device)), cache_dir=cache_dir)
