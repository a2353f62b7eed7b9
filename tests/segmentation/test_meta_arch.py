"""CAT-Seg as a module: sizes, batches, gradients, vocabulary, background."""

import logging

import pytest
import torch

from denserc.openvocab.engine import build
from denserc.structures import ConfigurationError, DataError
from tests.segmentation.squares import squares_config

NAMES = ["red square", "blue square", "green square"]


@pytest.fixture()
def make(tmp_path):
    """make(**changes) -> a small CATSeg over the random miniature, in eval mode, with three names."""

    def build_one(**changes):
        cfg = squares_config(tmp_path, **{"DATASETS__TRAIN": (), "DATASETS__TEST": (), **changes})
        torch.manual_seed(0)
        model = build(cfg).eval()
        model.set_vocabulary(NAMES)
        return model

    return build_one


def picture(h, w, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, h, w), dtype=torch.uint8, generator=generator)


def labels(h, w, seed=0):
    return torch.randint(-1, 4, (h, w), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("windows", [True, False])
def test_a_batch_of_different_sizes(make, windows):
    """CAT-Seg takes one picture per call and loses the others."""
    model = make(MODEL__CATSEG__WINDOWS__ENABLED=windows)
    batch = [{"image": picture(40, 64)}, {"image": picture(56, 30, 1), "height": 70, "width": 41}]
    together = [one["sem_seg"] for one in model(batch)]
    assert [tuple(one.shape) for one in together] == [(3, 40, 64), (3, 70, 41)]
    for one, scores in zip(batch, together, strict=True):
        torch.testing.assert_close(model([one])[0]["sem_seg"], scores, atol=0, rtol=0)


def test_a_training_batch_of_different_sizes(make):
    model = make().train()
    sizes = [(40, 64), (56, 30)]
    batch = [{"image": picture(*size, i), "sem_seg": labels(*size, i)} for i, size in enumerate(sizes)]
    with torch.no_grad():
        alone = [float(model([one])["loss_sem_seg"]) for one in batch]
        assert float(model(batch)["loss_sem_seg"]) == pytest.approx(sum(alone) / 2, rel=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"MODEL__CATSEG__INPUT_SIZE": [40, 72]},  # 5 x 9 positions: windows of 3 need padding, one side is long
        {"MODEL__CATSEG__INPUT_SIZE": [16, 64]},  # one side fits a window
        {"MODEL__CATSEG__SWIN_WINDOW": 12},
        {"MODEL__CATSEG__POOLING_TRAIN": [3, 2]},
        {"MODEL__CATSEG__WINDOWS__CANVAS": []},
        {"MODEL__CATSEG__WINDOWS__CANVAS": [50, 70], "MODEL__CATSEG__WINDOWS__OVERLAP": 0.5},
        {"MODEL__CATSEG__BLOCKS": [2], "MODEL__CATSEG__DECODER_DIMS": [16], "MODEL__CATSEG__GUIDANCE_DIMS": [8],
         "MODEL__CATSEG__PROJECTED_DIMS": [4]},
        {"MODEL__CATSEG__BLOCKS": [0, 2, 5], "MODEL__CATSEG__DECODER_DIMS": [16, 16, 16],
         "MODEL__CATSEG__GUIDANCE_DIMS": [8, 8, 8], "MODEL__CATSEG__PROJECTED_DIMS": [4, 4, 4]},
    ],
)  # fmt: skip
def test_any_size_by_configuration(make, changes):
    model = make(**changes)
    scores = model([{"image": picture(70, 90)}])[0]["sem_seg"]
    assert scores.shape == (3, 70, 90) and torch.isfinite(scores).all()
    model.train()
    loss = model([{"image": picture(70, 90), "sem_seg": labels(70, 90)}])["loss_sem_seg"]
    loss.backward()
    assert torch.isfinite(loss)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"MODEL__CONSTRUCTION__NAME": "clipself"},
        {"MODEL__CONSTRUCTION__NAME": "declip"},
        {"MODEL__CONSTRUCTION__NAME": "declip_kk"},
        {"MODEL__CONSTRUCTION__NAME": "declip_csa", "MODEL__CATSEG__TRAIN__TEXT": "qkv"},
        {"MODEL__CONSTRUCTION__NAME": "denserc_qk", "MODEL__CATSEG__TRAIN__IMAGE": "qkv"},
        {"MODEL__CONSTRUCTION__NAME": "catseg", "MODEL__CATSEG__TRAIN__TEXT": "none"},
        {"MODEL__CATSEG__CLASS_LIMIT": 2},
        {"MODEL__CATSEG__CLASS_LIMIT": 0},
        {"MODEL__CATSEG__ATTENTION": "full"},
        {"MODEL__CATSEG__ATTENTION": "full", "MODEL__CATSEG__CLASS_LIMIT": 3},
        {"MODEL__CATSEG__BACKGROUND": "prompt"},
    ],
)
def test_every_trained_parameter_gets_a_gradient(make, changes):
    """Several processes need it; what has no use is not trained."""
    model = make(**changes).train()
    model([{"image": picture(40, 64), "sem_seg": labels(40, 64)}])["loss_sem_seg"].backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    frozen = [p for p in model.parameters() if not p.requires_grad]
    assert frozen and all(p.grad is None for p in frozen)


def test_padding_is_the_same_as_cutting_the_picture(make):
    """Padded positions of an incomplete Swin window change nothing for the others."""
    model = make(MODEL__CATSEG__INPUT_SIZE=[40, 40])
    block = model.aggregator.layers[0].spatial.blocks[1].attn
    x, guidance = torch.randn(1, 2, 5, 5, 16), torch.randn(1, 5, 5, 8)
    x.requires_grad_(True)
    block(x, guidance)[0, 0, 0, 0].sum().backward()
    seen = x.grad[0, 0].abs().sum(dim=-1) > 1e-12
    assert seen[0, 0] and not seen[3:, :].any() and not seen[:, 3:].any()
    assert not x.grad[0, 1].any()  # classes do not see each other


@pytest.mark.parametrize("kind", ["linear", "full"])
def test_a_padding_token_counts_as_many_as_it_stands_for(make, kind):
    """Against the padding written out."""
    layer = make(MODEL__CATSEG__ATTENTION=kind).aggregator.layers[0].classes
    torch.nn.init.normal_(layer.padding_token)
    torch.nn.init.normal_(layer.padding_guidance)
    x, guidance = torch.randn(1, 6, 3, 16), torch.randn(1, 3, 8)
    padding = layer.padding_token, layer.padding_guidance
    short = layer.attention(x, guidance, padding, 4)
    whole_x = torch.cat([x, padding[0].expand(1, 6, 4, 16)], dim=2)
    whole_guidance = torch.cat([guidance, padding[1].expand(1, 4, 8)], dim=1)
    whole = layer.attention(whole_x, whole_guidance, None, 0)[:, :, :3]
    torch.testing.assert_close(short, whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        layer.attention(x, guidance, padding, 0), layer.attention(x, guidance, None, 0), atol=1e-6, rtol=1e-6
    )


def test_ignored_pixels(make):
    """CAT-Seg counts them as negatives of every class; the option leaves them out."""
    one = {"image": picture(40, 64), "sem_seg": torch.full((40, 64), 1)}
    one["sem_seg"][:, 32:] = 255
    with torch.no_grad():
        losses = {}
        for kind in ("negative", "excluded"):
            model = make(MODEL__CATSEG__IGNORED=kind).train()
            losses[kind] = float(model([one])["loss_sem_seg"])
            logits = model.logits(
                torch.nn.functional.interpolate(
                    (one["image"][None].float() - model.pixel_mean) / model.pixel_std, size=model.input_size,
                    mode="bilinear",
                ),
                model.text_features(),
            )  # fmt: skip
            logits = torch.nn.functional.interpolate(logits, size=(40, 64), mode="bilinear")[0]
            target = torch.nn.functional.one_hot(one["sem_seg"].where(one["sem_seg"] < 3, 3), 4)[..., :3]
            full = torch.nn.functional.binary_cross_entropy_with_logits(
                logits.permute(1, 2, 0), target.float(), reduction="none"
            )
            expected = full.mean() if kind == "negative" else full[:, :32].mean()
            assert losses[kind] == pytest.approx(float(expected), rel=1e-5)
    assert losses["negative"] != pytest.approx(losses["excluded"], rel=1e-3)


def test_labels_must_be_a_map(make):
    with pytest.raises(DataError, match="labels"):
        make().train()([{"image": picture(40, 64), "sem_seg": torch.zeros(1, 40, 64)}])


def test_the_vocabulary_is_exchanged_and_follows_the_weights(make):
    model = make()
    one = {"image": picture(40, 64)}
    first = model([one])[0]["sem_seg"]
    model.set_vocabulary(["violet disc", "sky"])
    assert model([one])[0]["sem_seg"].shape[0] == 2
    model.set_vocabulary(NAMES)
    torch.testing.assert_close(model([one])[0]["sem_seg"], first, atol=0, rtol=0)
    # A step of training: the embeddings made before are not used again.
    before = model.classes.require().clone()
    model.train()([{**one, "sem_seg": labels(40, 64)}])["loss_sem_seg"].backward()
    with torch.no_grad():
        for p in model.text_tower.parameters():
            if p.grad is not None:
                p -= 10 * p.grad
    model.eval()([one])
    after = model.classes.require()
    assert not torch.equal(before, after)
    torch.testing.assert_close(model.train().text_features().detach(), after, atol=1e-5, rtol=1e-5)


def test_loading_weights_embeds_the_vocabulary_again(make):
    model, other = make(), make()
    with torch.no_grad():
        for p in other.text_tower.parameters():
            if p.requires_grad:
                p.normal_(std=0.1)
    other.embed_again()
    one = {"image": picture(40, 64)}
    model([one])
    model.load_state_dict(other.state_dict())
    torch.testing.assert_close(model([one])[0]["sem_seg"], other([one])[0]["sem_seg"], atol=0, rtol=0)
    assert model.metadata["text_fingerprint"] == other.text_tower.fingerprint()


def test_frozen_text_is_embedded_once(make, monkeypatch):
    model = make(MODEL__CATSEG__TRAIN__TEXT="none").train()
    monkeypatch.setattr(model.text_tower, "forward", lambda prompts: pytest.fail("embedded again"))
    model([{"image": picture(40, 64), "sem_seg": labels(40, 64)}])


def test_background_by_a_prompt(make):
    scores = make(MODEL__CATSEG__BACKGROUND="prompt")([{"image": picture(40, 64)}])[0]["sem_seg"]
    assert scores.shape == (4, 40, 64)


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_background_by_a_threshold(make, threshold):
    one = [{"image": picture(40, 64)}]
    options = {"MODEL__CATSEG__BACKGROUND": "threshold", "MODEL__CATSEG__BACKGROUND_THRESHOLD": threshold}
    scores = make(**options)(one)[0]["sem_seg"]
    found = make(**options, MODEL__CATSEG__OUTPUT="labels")(one)[0]["sem_seg"]
    assert scores.shape == (4, 40, 64) and torch.equal(scores.argmax(dim=0), found)
    assert (found == 3).all() if threshold > 1 else (found < 3).all()


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_labels_come_with_their_scores(make, threshold):
    """If only labels are used, scores of all classes are not computed."""
    model = make(MODEL__CATSEG__BACKGROUND="threshold", MODEL__CATSEG__BACKGROUND_THRESHOLD=threshold)
    one = [{"image": picture(40, 64), "height": 60, "width": 50}]
    scores = model(one)[0]["sem_seg"]
    with model.best_labels():
        found = model(one)[0]
    best, labels = scores.max(dim=0)
    assert torch.equal(found["sem_seg"], labels) and torch.equal(found["scores"], best)
    assert model(one)[0]["sem_seg"].shape == (4, 60, 50)  # as configured again


def test_scores_that_do_not_fit_are_refused(make, monkeypatch):
    monkeypatch.setattr("denserc.segmentation.modeling.meta_arch.free_bytes", lambda device: 3 * 60 * 50 * 4 - 1)
    model, one = make(), [{"image": picture(40, 64), "height": 60, "width": 50}]
    with pytest.raises(ConfigurationError, match="Scores of 3 classes for 60 x 50 pixels .* 'labels'"):
        model(one)
    with model.best_labels():
        assert model(one)[0]["sem_seg"].shape == (60, 50)


@pytest.mark.parametrize("changes", [{}, {"MODEL__CATSEG__CLASS_LIMIT": 2}, {"MODEL__CATSEG__TRAIN__TEXT": "none"}])
def test_gradient_checkpointing_changes_no_gradient(make, changes):
    """In float64: sums over parts have another order."""
    one = [{"image": picture(40, 64), "sem_seg": labels(40, 64)}, {"image": picture(50, 50), "sem_seg": labels(50, 50)}]
    found = {}
    for kind in ("none", "full"):
        model = make(MODEL__CATSEG__GRADIENT_CHECKPOINTING=kind, MODEL__CATSEG__CHUNK=4, **changes).double().train()
        kept = {}

        def keep(tensor, kept=kept):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(one)["loss_sem_seg"]
        loss.backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found[kind] = float(loss.detach()), gradients, sum(kept.values())
    assert found["full"][0] == pytest.approx(found["none"][0], rel=1e-12)
    assert found["full"][1].keys() == found["none"][1].keys()
    for name, gradient in found["none"][1].items():
        torch.testing.assert_close(found["full"][1][name], gradient, atol=1e-14, rtol=1e-9, msg=name)
    assert found["full"][2] < 0.5 * found["none"][2]


def test_equal_prompts_are_told_and_the_first_wins(make, caplog):
    model = make(MODEL__CATSEG__OUTPUT="labels")
    with caplog.at_level(logging.WARNING, logger="denserc.openvocab.vocabulary"):
        model.set_vocabulary(["bag", "sky", "bag, handbag"])
    assert "'bag' = 'bag, handbag'" in caplog.text
    assert (model([{"image": picture(40, 64)}])[0]["sem_seg"] != 2).all()


def test_wrong_options_are_refused(make):
    for key, value in (
        ("MODEL__CATSEG__OUTPUT", "argmax"),
        ("MODEL__CATSEG__BLOCKS", [1]),
        ("MODEL__CATSEG__HIDDEN_DIM", 15),
        ("MODEL__CATSEG__WINDOWS__OVERLAP", 1.0),
        ("MODEL__CATSEG__PROJECTED_DIMS", [4]),
        ("MODEL__VOCABULARY__SYNONYMS", "all"),
    ):
        with pytest.raises(ConfigurationError):
            make(**{key: value})
