"""Names embedded by a command: the content of the file, and the encoder that it names."""

import pytest
import torch

from denserc.commands.embed import main
from denserc.data.vocabulary.prompts import PLAIN_TEMPLATES
from denserc.data.vocabulary.text_embeddings import embed_names, load_text_embeddings
from denserc.encoders import build_clip
from denserc.structures import ConfigurationError, DataError

MINIATURE = ["--encoder", "DenseRC-Miniature", "--templates", "plain"]


@pytest.fixture(autouse=True)
def no_real_sets(tmp_path, monkeypatch, forget_registered):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))


@pytest.fixture(scope="module")
def tower():
    return build_clip("DenseRC-Miniature").text


def test_names_of_sets_files_and_the_command_line_come_once(tmp_path, tower):
    (tmp_path / "birds.yaml").write_text("name: birds\nbase: [owl, hen]\nval: {annotations: a.json, images: .}\n")
    (tmp_path / "more.txt").write_text("hen\ncrow\n")
    out = tmp_path / "e.safetensors"
    given = [
        "--data-sets",
        str(tmp_path / "birds.yaml"),
        "--names",
        "swan, owl",
        "--names-file",
        str(tmp_path / "more.txt"),
    ]
    assert main([*MINIATURE, *given, "--output", str(out)]) == 0
    loaded = load_text_embeddings(out)
    assert loaded.names == ("owl", "hen", "swan", "crow", "background")
    assert loaded.fingerprint == tower.fingerprint() and loaded.templates == PLAIN_TEMPLATES
    assert torch.equal(loaded.vectors, embed_names(tower, loaded.names, PLAIN_TEMPLATES).vectors)


def test_a_file_without_a_fingerprint_is_told_by_its_vectors(tmp_path, tower, capsys):
    embeddings = embed_names(tower, ["red circle", "blue square"], PLAIN_TEMPLATES)
    by_name = dict(zip(embeddings.names, embeddings.vectors, strict=True))
    torch.save(by_name, tmp_path / "own.pt")
    assert main([*MINIATURE, "--compare", str(tmp_path / "own.pt")]) == 0
    assert "made by this text tower" in capsys.readouterr().out
    torch.save({"red circle": by_name["blue square"]}, tmp_path / "other.pt")
    assert main([*MINIATURE, "--compare", str(tmp_path / "other.pt")]) == 1
    torch.save({"red circle": torch.ones(3)}, tmp_path / "narrow.pt")
    with pytest.raises(ConfigurationError, match="width 3"):
        main([*MINIATURE, "--compare", str(tmp_path / "narrow.pt")])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([*MINIATURE, "--names", "owl"], "--output"),
        ([*MINIATURE], "--compare"),
        (["--names", "owl", "--output", "e.safetensors"], "--checkpoint"),
        ([*MINIATURE, "--names", "owl", "--output", "e.pt"], "safetensors"),
        ([*MINIATURE, "--data-sets", "nothing", "--output", "e.safetensors"], "nothing"),
    ],
)
def test_senseless_requests_are_refused(arguments, message):
    with pytest.raises((ConfigurationError, DataError), match=message):
        main(arguments)
