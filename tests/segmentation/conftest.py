"""The recordings of CAT-Seg and the model with their weights."""

import pytest
import torch

from denserc.segmentation.modeling.meta_arch import CATSeg
from tests.segmentation.recorded import Recordings, recorded_model, register_clip


@pytest.fixture(scope="session")
def recordings() -> Recordings:
    return Recordings()


@pytest.fixture(scope="session")
def recorded_encoder(recordings, tmp_path_factory) -> str:
    """Name of the recorded CLIP, known to open_clip."""
    return register_clip(recordings.config, tmp_path_factory.mktemp("clip"))


@pytest.fixture()
def make_recorded(recordings, recorded_encoder):
    """make(*options) -> CATSeg with the recorded weights."""

    def make(*options) -> CATSeg:
        with torch.random.fork_rng(devices=[]):
            return recorded_model(recordings, recorded_encoder, *options)

    return make
