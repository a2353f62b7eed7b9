"""Data: vocabularies, prompts, text embeddings, splits, registration in Detectron2."""

from .registration import dataset_vocabulary, register_from_yaml, register_open_vocab_dataset

__all__ = ["dataset_vocabulary", "register_from_yaml", "register_open_vocab_dataset"]
