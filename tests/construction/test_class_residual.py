"""CAT-Seg's dense last block: values and MLP over the class token's residual."""

import pytest
import torch

from denserc.construction import Construction, DenseEncoder
from denserc.encoders import build_clip, merge_heads
from denserc.structures import ConfigurationError
from tests import tiny_models  # noqa: F401  (registers the models)


@torch.no_grad()
def test_every_patch_gets_the_class_tokens_residual():
    tower = build_clip("DenseRC-Test-CLIP", random_init=True).image.eval()
    images, last = torch.randn(2, 3, 32, 40), tower.depth - 1
    stream = tower.embed(images)
    for index in range(last):
        stream, _, _ = tower.block(index, stream)
    _, v = tower.values(last, stream.patches)
    x = stream.tokens[:, :1] + tower.output_projection(last, merge_heads(v))
    expected = stream.to_map(tower.to_text_space(tower.mlp(last, x)))
    dense = DenseEncoder(tower, Construction.named("catseg"))(images)
    torch.testing.assert_close(dense, expected, atol=1e-6, rtol=1e-6)
    for other in ("clipself", "last_block_values"):
        assert (DenseEncoder(tower, Construction.named(other))(images) - dense).abs().max() > 1e-2


def test_a_tower_without_class_token_is_refused():
    encoder = DenseEncoder(build_clip("DenseRC-Test-Sigmoid", random_init=True).image, Construction.named("catseg"))
    with pytest.raises(ConfigurationError, match="class token"):
        encoder(torch.randn(1, 3, 32, 32))
