"""The text tower equals open_clip's own call."""

import pytest
import torch

from denserc.encoders import build_clip


@pytest.mark.parametrize("name", ["DenseRC-Miniature", "EVA02-B-16", "ViT-B-16-quickgelu"])
@torch.no_grad()
def test_padding_after_the_longest_prompt_is_not_computed(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        text = build_clip(name, random_init=True).text
    prompts = ["cat", "a photo of a striped green square in the scene.", "dog"]
    tokens = text._tokenizer(prompts)
    seen = []
    text.text.register_forward_hook(lambda module, arguments, output: seen.append(arguments[0].shape[1]))
    expected = text.text(tokens)
    torch.testing.assert_close(text.encode_text(prompts), expected, atol=1e-5, rtol=1e-5)
    assert seen[0] == tokens.shape[1] and seen[1] == int((tokens != 0).sum(1).max()) < seen[0]
