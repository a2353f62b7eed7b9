"""Data: vocabularies, prompts, text embeddings, splits, registration in Detectron2."""

from importlib import import_module

__all__ = ["dataset_vocabulary", "register_from_yaml", "register_open_vocab_dataset"]


def __getattr__(name: str):
    # Registration imports Detectron2, which takes seconds; the prepare scripts do without it.
    if name in __all__:
        return getattr(import_module(".datasets.registration", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
