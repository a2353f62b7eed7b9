"""Stages by the engine of the full size: what learns, what is written, and the stored tokens."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs denserc[llava]")
pytest.importorskip("accelerate", reason="needs denserc[llava]")

from denserc.config import read_config  # noqa: E402
from denserc.llava.build import load_llava  # noqa: E402
from denserc.miniature.llava.features import StoredTokens, make_stores, tokens_as_pictures  # noqa: E402
from denserc.miniature.llava.training import train_stage  # noqa: E402
from tests.paths import CONFIGS  # noqa: E402


@pytest.fixture(scope="module")
def tokens(tiny, llava):
    make_stores(*llava, tiny / "questions", tiny / "tokens", ["train"])
    return StoredTokens(tiny / "tokens" / "train.npy", tiny / "questions" / "train")


def trained(tiny, stage, data, tokens, output):
    options = ["LLAVA.DATA.FILES", (str(tiny / "questions" / data),), "LLAVA.DATA.IMAGES", str(tiny / "questions")]
    options += ["MODEL.WEIGHTS", str(tiny / "start"), "OUTPUT_DIR", str(output), "SOLVER.AMP.ENABLED", False]
    output.mkdir(exist_ok=True)
    cfg = read_config(
        CONFIGS / "miniature" / f"llava_{stage}.yaml", [*options, "SOLVER.MAX_ITER", 3, "SOLVER.IMS_PER_BATCH", 2]
    )
    assert train_stage(cfg, tokens)["steps"] == 3
    return load_llava(output / "model")[0].state_dict()


@pytest.mark.parametrize(
    "stage, data, shown, moving",
    [
        ("align", "captions.json", True, {"multi_modal_projector"}),
        ("instruct", "instruct.json", True, {"multi_modal_projector", "language_model", "lm_head"}),
        ("instruct", "instruct.json", False, {"language_model", "lm_head"}),
    ],
)
def test_only_the_parts_of_a_stage_move(tiny, llava, tokens, tmp_path, stage, data, shown, moving):
    before = llava[0].state_dict()
    after = trained(tiny, stage, data, tokens if shown else None, tmp_path)
    assert before.keys() == after.keys()
    names = {name for name in before if not torch.equal(before[name], after[name])}
    parts = ("multi_modal_projector", "language_model", "lm_head", "vision_tower")
    assert {next(part for part in parts if part in name) for name in names} == moving


def test_stored_tokens_are_the_towers(tiny, llava, tokens):
    from denserc.data.images.reading import read_rgb
    from denserc.llava.collator import PictureTransform
    from denserc.llava.options import Aspect

    model, processor = llava
    path = tiny / "questions" / "train" / "000002.png"
    picture = PictureTransform(processor.image_processor, Aspect.PAD)(read_rgb(path))
    expected = model.model.vision_tower(picture[None]).hidden_states[-1][0]
    torch.testing.assert_close(tokens(str(path)), expected, rtol=1e-3, atol=1e-3)
    assert np.load(tiny / "tokens" / "train.npy").dtype == np.float16


def test_the_tower_works_again_after_stored_tokens(llava):
    model, _ = llava
    image = torch.zeros(1, 3, 128, 128)
    expected = model.model.vision_tower(image).hidden_states[-1]
    given = torch.randn(1, 256, expected.shape[-1])
    with tokens_as_pictures(model):
        assert torch.equal(model.model.vision_tower(given, return_dict=True).hidden_states[-1], given)
    assert torch.equal(model.model.vision_tower(image).hidden_states[-1], expected)
