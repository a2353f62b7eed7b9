"""DenseRC: dense features reconstructed from CLIP, and open-vocabulary detection on top of them."""

__version__ = "0.1.0"
