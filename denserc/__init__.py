"""DenseRC: dense features reconstructed from CLIP, and open-vocabulary detection on top of them.

Example::

    import denserc

    predictor = denserc.Predictor("model_final.pth", names=["red cup", "striped ball"])
    detections = predictor("photo.jpg")
    predictor.draw("photo.jpg", detections).save("drawn.png")

The names below are imported when they are first used, so `import denserc` does not import torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import model_zoo as model_zoo
    from .api import load as load
    from .api import load_model as load_model
    from .predictor import Predictor as Predictor

__version__ = "0.1.0"

_HOMES = {"Predictor": "predictor", "load": "api", "load_model": "api"}  # name -> module that defines it
_MODULES = ("model_zoo",)

__all__ = ["Predictor", "__version__", "load", "load_model", "model_zoo"]


def __getattr__(name: str):
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
