"""A LLaVA of a tiny llama over the packaged miniature CLIP, with questions about some scenes."""

import pytest


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Folder with questions/ and start/, a LLaVA whose projector is random."""
    pytest.importorskip("transformers", reason="needs denserc[llava]")
    from denserc.construction import Construction, DenseEncoder, DenseModel, save_checkpoint
    from denserc.encoders import build_clip
    from denserc.miniature.llava.language_model import LlamaSizes, build_language_model, build_tokenizer
    from denserc.miniature.llava.write_questions import QuestionSizes, write_questions
    from denserc.mllm import export_llava

    folder = tmp_path_factory.mktemp("tiny")
    write_questions(folder / "questions", sizes=QuestionSizes(text=4, train=4, test=3))
    clip = build_clip("DenseRC-Miniature")
    model = DenseModel(DenseEncoder(clip.image, Construction.named("denserc")), clip.text, clip.logit_scale)
    save_checkpoint(folder / "denserc.safetensors", model)
    tokenizer = build_tokenizer()
    build_language_model(tokenizer, LlamaSizes(32, 2, 2, 48), positions=512, seed=0).save_pretrained(
        folder / "language_model"
    )
    tokenizer.save_pretrained(folder / "language_model")
    export_llava(folder / "language_model", folder / "denserc.safetensors", folder / "start")
    return folder


@pytest.fixture(scope="session")
def llava(tiny):
    """(model, processor) of the folder."""
    from denserc.llava.build import load_llava

    return load_llava(tiny / "start")
