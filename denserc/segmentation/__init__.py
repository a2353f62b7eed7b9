"""CAT-Seg and training-free segmentation in Detectron2. Importing registers the meta-architectures."""

from .dense import DENSE_MAPPERS, DenseSegmenter
from .engine import MAPPERS, run
from .modeling.aggregation import Aggregator
from .modeling.meta_arch import CATSeg

__all__ = ["DENSE_MAPPERS", "MAPPERS", "Aggregator", "CATSeg", "DenseSegmenter", "run"]
