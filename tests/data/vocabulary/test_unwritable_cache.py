"""A cache of text embeddings that cannot be written is one warning; two threads never tear one of its files."""

import logging
import os
import threading

import pytest
import torch

from denserc.data.vocabulary import text_embeddings
from denserc.data.vocabulary.text_embeddings import embed_names, load_text_embeddings

TEMPLATES = ["a {}.", "one {}."]


class Tower:
    """Embeds a sentence by its length."""

    def encode_text(self, prompts):
        return torch.tensor([[1.0, len(prompt), len(prompt) % 3] for prompt in prompts])

    def fingerprint(self):
        return "lengths"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No folder has refused a file."""
    monkeypatch.setattr(text_embeddings, "_UNWRITABLE", set())


def test_the_embeddings_are_used_without_the_cache(tmp_path, caplog):
    (tmp_path / "file").touch()
    folder, expected = tmp_path / "file" / "text_embeddings", embed_names(Tower(), ["cat"], TEMPLATES)
    with caplog.at_level(logging.WARNING):
        for names in (["cat"], ["cat"], ["dog"]):
            found = embed_names(Tower(), names, TEMPLATES, cache_dir=folder)
    assert found.names == ("dog",) and len(caplog.records) == 1 and str(folder) in caplog.text
    assert torch.equal(embed_names(Tower(), ["cat"], TEMPLATES, cache_dir=folder).vectors, expected.vectors)


@pytest.mark.parametrize("number", [28, 30, 13, 122])  # full, read-only, no permission, quota
def test_every_refusal_is_a_warning(tmp_path, caplog, monkeypatch, number):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        embed_names(Tower(), ["cat"], TEMPLATES, cache_dir=tmp_path)
    assert os.strerror(number) in caplog.text and not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="the superuser may read every folder")
def test_a_folder_that_may_not_be_read_is_a_warning(tmp_path, caplog):
    tmp_path.chmod(0)
    try:
        embed_names(Tower(), ["cat"], TEMPLATES, cache_dir=tmp_path / "deep")
    finally:
        tmp_path.chmod(0o700)
    assert str(tmp_path / "deep") in caplog.text


def test_threads_share_one_cache(tmp_path):
    names, found = [f"name {i}" for i in range(200)], []

    def work():
        found.append(embed_names(Tower(), names, TEMPLATES, cache_dir=tmp_path).vectors)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(torch.equal(one, found[0]) for one in found)
    (file,) = tmp_path.iterdir()
    assert torch.equal(load_text_embeddings(file).vectors, found[0])
