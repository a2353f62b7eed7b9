import json

import numpy as np
import pytest
import torch
from PIL import Image

from denserc.commands.describe import main
from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
from denserc.structures import ConfigurationError
from denserc.tools.describe import describe, mean_gates, parse_size


@pytest.fixture()
def checkpoint(tmp_path, miniature):
    encoder = DenseEncoder(miniature.image, Construction())
    with torch.no_grad():
        encoder.gates.projections[0].weight[2] = 0.5
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, DenseModel(encoder, miniature.text, miniature.logit_scale, {"seed": 4}))
    return path


def test_sizes_are_height_first():
    assert parse_size("640") == (640, 640) and parse_size("768x1024") == (768, 1024)
    with pytest.raises(ConfigurationError, match="'big'"):
        parse_size("big")


def test_gates_of_untrained_heads_are_one_half(miniature):
    encoder = DenseEncoder(miniature.image, Construction()).eval()
    with torch.no_grad():
        encoder.gates.projections[0].weight[3] = torch.randn(encoder.width)
    means = mean_gates(encoder, [torch.randn(3, 64, 32), torch.randn(3, 32, 32)])
    assert means.shape == (3, encoder.tower.num_heads)
    others = [head for head in range(encoder.tower.num_heads) if head != 3]
    torch.testing.assert_close(means[:, others], torch.full((3, len(others)), 0.5))
    assert not torch.allclose(means[:, 3], torch.tensor(0.5), atol=1e-4)


def test_everything_is_said_in_words_and_in_json(checkpoint, tmp_path, capsys):
    picture = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 90, 3), dtype=np.uint8)).save(picture)
    result = describe(checkpoint, [(64, 128)], [picture])
    assert result["parameters"]["gates"] == 128 * 8 and result["notes"] == {"seed": 4}
    assert list(result["mean gates"]) == ["block 3", "block 4", "block 5"]
    main([str(checkpoint), "--sizes", "64x128", "--images", str(picture), "--json"])
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(result))
    main([str(checkpoint), "--sizes", "64x128", "--images", str(picture)])
    shown = capsys.readouterr().out
    assert "encoder: DenseRC-Miniature" in shown and "multiply-accumulates at 64x128" in shown and "block 5" in shown
