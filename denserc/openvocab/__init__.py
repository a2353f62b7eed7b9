"""The parts that every open-vocabulary model shares: vocabulary, training, evaluation, loaders, checkpoints."""

from .checkpoint import BestCheckpoint, ModelCheckpointer, build_towers, model_from_checkpoint, read_checkpoint
from .engine import Mappers, run
from .loader import build_test_loader, build_train_loader, training_records
from .portable import StoredPrecision, save_portable
from .vocabulary import ClassEmbeddings, OpenVocabularyModel

__all__ = [
    "BestCheckpoint",
    "ClassEmbeddings",
    "Mappers",
    "ModelCheckpointer",
    "OpenVocabularyModel",
    "StoredPrecision",
    "build_test_loader",
    "build_towers",
    "build_train_loader",
    "model_from_checkpoint",
    "read_checkpoint",
    "run",
    "save_portable",
    "training_records",
]
