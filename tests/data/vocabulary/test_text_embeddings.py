"""Text embeddings: arithmetic, cache, file formats, and properties of real ones."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize

from denserc.data.vocabulary.prompts import VerbatimTemplate
from denserc.data.vocabulary.published import vocabulary
from denserc.data.vocabulary.text_embeddings import cache_key, embed_names, load_text_embeddings, save_text_embeddings
from denserc.structures import DataError, FingerprintMismatchError, TextEmbeddings
from tests.paths import DATA

REAL = DATA / "data" / "text_embeddings"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the originals' text embeddings are not at hand")
TEMPLATES = ("a photo of {article} {}.", "There is the {} in the scene.")


class Tower:
    """A text tower whose embedding is a pseudo-random function of the sentence; counts its sentences."""

    def __init__(self, name: str = "one"):
        self.name, self.seen = name, []

    def encode_text(self, prompts: list[str]) -> torch.Tensor:
        self.seen += prompts
        rows = [np.random.default_rng(list(f"{self.name}{p}".encode())).normal(size=8) * 3 for p in prompts]
        return torch.tensor(np.stack(rows), dtype=torch.float32)

    def fingerprint(self) -> str:
        return self.name


def test_is_the_normalized_mean_of_unit_vectors():
    tower = Tower()
    embeddings = embed_names(tower, ["cat", "apple"], TEMPLATES, batch_size=3)
    assert tower.seen[:2] == ["This is a photo of a cat.", "There is the cat in the scene."]
    sentences = ["This is a photo of an apple.", "There is the apple in the scene."]
    expected = normalize(normalize(tower.encode_text(sentences), dim=-1).mean(0), dim=-1)
    torch.testing.assert_close(embeddings.select(["apple"])[0], expected)
    assert embeddings.fingerprint == "one" and embeddings.templates == TEMPLATES


def test_cache_answers_without_the_tower(tmp_path):
    first = embed_names(Tower(), ["cat", "dog"], TEMPLATES, cache_dir=tmp_path)
    tower = Tower()
    second = embed_names(tower, ["cat", "dog"], TEMPLATES, cache_dir=tmp_path)
    assert tower.seen == []
    assert torch.equal(first.vectors, second.vectors)
    assert (second.names, second.fingerprint, second.templates) == (first.names, first.fingerprint, first.templates)


@pytest.mark.parametrize(
    "tower, names, templates",
    [
        (Tower("two"), ["cat", "dog"], TEMPLATES),
        (Tower(), ["dog", "cat"], TEMPLATES),
        (Tower(), ["cat", "dog", "cow"], TEMPLATES),
        (Tower(), ["cat", "dog"], TEMPLATES[:1]),
    ],
)
def test_cache_tells_encoder_names_and_templates_apart(tmp_path, tower, names, templates):
    embed_names(Tower(), ["cat", "dog"], TEMPLATES, cache_dir=tmp_path)
    tower.seen.clear()
    embeddings = embed_names(tower, names, templates, cache_dir=tmp_path)
    assert tower.seen and embeddings.names == tuple(names)


def test_names_and_templates_cannot_run_into_each_other():
    assert cache_key("f", ["a", "b"], ["c {}"]) != cache_key("f", ["a"], ["b", "c {}"])
    assert cache_key("f", ["a, b"], ["{}"]) != cache_key("f", ["a", "b"], ["{}"])


def test_damaged_cache_is_made_again(tmp_path):
    embed_names(Tower(), ["cat"], TEMPLATES, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    tower = Tower()
    embed_names(tower, ["cat"], TEMPLATES, cache_dir=tmp_path)
    assert tower.seen
    assert load_text_embeddings(file).names == ("cat",)


def test_save_and_load_are_identical_and_leave_nothing_behind(tmp_path):
    embeddings = embed_names(Tower(), ["café", "a/b"], TEMPLATES)
    save_text_embeddings(tmp_path / "e.safetensors", embeddings)
    loaded = load_text_embeddings(tmp_path / "e.safetensors")
    assert torch.equal(loaded.vectors, embeddings.vectors) and loaded.names == ("café", "a/b")
    assert [p.name for p in tmp_path.iterdir()] == ["e.safetensors"]


def test_lookup_does_not_depend_on_the_order(tmp_path):
    names = ["cat", "dog", "cow"]
    vectors = normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    torch.save(dict(zip(names, vectors, strict=True)), tmp_path / "a.pt")
    torch.save(dict(zip(names[::-1], vectors.flip(0), strict=True)), tmp_path / "b.pt")
    first, second = (load_text_embeddings(tmp_path / f"{n}.pt") for n in "ab")
    assert first.names != second.names
    assert torch.equal(first.select(names), second.select(names))
    assert torch.equal(load_text_embeddings(tmp_path / "b.pt", names=["cow", "cat"]).vectors, first.vectors[[2, 0]])


def test_array_files_need_their_names(tmp_path):
    np.save(tmp_path / "e.npy", np.full((2, 4), 2.0, dtype=np.float16))
    with pytest.raises(DataError, match="names="):
        load_text_embeddings(tmp_path / "e.npy")
    with pytest.raises(DataError, match="3 names"):
        load_text_embeddings(tmp_path / "e.npy", names=["a", "b", "c"])
    torch.testing.assert_close(
        load_text_embeddings(tmp_path / "e.npy", names=["a", "b"]).vectors, torch.full((2, 4), 0.5)
    )


def test_embeddings_of_another_encoder_are_refused():
    embeddings = embed_names(Tower("two"), ["cat"], TEMPLATES)
    embeddings.require_fingerprint("two")
    with pytest.raises(FingerprintMismatchError, match="two.*one"):
        embeddings.require_fingerprint("one")
    TextEmbeddings(("cat",), torch.eye(1)).require_fingerprint("one")  # unknown: published files have none


@pytest.mark.parametrize(
    "names, templates", [([], TEMPLATES), (["cat", "cat"], TEMPLATES), (["cat"], ()), (["cat"], ["a photo"])]
)
def test_senseless_requests_are_refused(names, templates):
    with pytest.raises(DataError):
        embed_names(Tower(), names, templates)


@pytest.mark.parametrize("content", [{"cat": torch.ones(3), "dog": torch.ones(4)}, {"cat": torch.zeros(3)}, [1]])
def test_strange_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "e.pt")
    with pytest.raises(DataError):
        load_text_embeddings(tmp_path / "e.pt")


@needs_real
def test_real_neighbors_make_sense():
    embeddings = load_text_embeddings(REAL / "coco_with_background_evaclip_vitb_16.pt")
    torch.testing.assert_close(embeddings.vectors.norm(dim=-1), torch.ones(81))
    similarity = embeddings.vectors @ embeddings.vectors.T - 2 * torch.eye(81)
    nearest = {name: embeddings.names[int(similarity[i].argmax())] for i, name in enumerate(embeddings.names)}
    assert (nearest["cat"], nearest["fork"], nearest["snowboard"]) == ("dog", "spoon", "skateboard")


@needs_real
@pytest.mark.parametrize(
    "file, name",
    [("coco_with_background_evaclip_vitb_16", "coco"), ("coco_with_background_evaclip_vitb_16", "ov_coco"),
     ("lvis_with_background_evaclip_vitb_16", "ov_lvis"), ("voc_transfer_background_evaclip_vitl14x336", "voc"),
     ("objects365v1_transfer_background_evaclip_vitl14x336", "objects365_v1")],
)  # fmt: skip
def test_real_embeddings_cover_the_vocabularies(file, name):
    names = [*vocabulary(name).names, "background"]
    assert load_text_embeddings(REAL / f"{file}.pt", names=names).vectors.shape[0] == len(names)


@needs_real
def test_panoptic_rows_belong_to_the_panoptic_names():
    """The same encoder's embeddings of the 80 shared names are far closer to their own row than to any other."""
    names = vocabulary("coco_panoptic").names
    rows = load_text_embeddings(REAL / "coco_panoptic_clip_hand_craft_EVACLIP_ViTB16.npy", names=names)
    coco = load_text_embeddings(REAL / "coco_with_background_evaclip_vitb_16.pt", names=vocabulary("coco").names)
    nearest = (coco.vectors @ rows.vectors.T).argmax(dim=1)
    assert [names[i] for i in nearest] == list(coco.names)


def test_a_template_used_as_it_is_has_a_cache_of_its_own():
    template = "a photo of a {}."
    assert cache_key("one", ["cat"], [template]) != cache_key("one", ["cat"], [VerbatimTemplate(template)])


CHANGES = {
    "names cut": {"names": "{junk"},
    "no names": {"names": None},
    "names a number": {"names": "3"},
    "names a text": {"names": '"cat, dog"'},
    "names nested": {"names": '[["cat"], ["dog"]]'},
    "names null": {"names": "null"},
    "names deep": {"names": "[" * 100_000},
    "names surrogate": {"names": r'["cat", "\ud800"]'},
    "other names": {"names": '["dog", "cat"]'},
    "a name more": {"names": '["cat", "dog", "cow"]'},
    "a name twice": {"names": '["cat", "cat"]'},
    "no fingerprint": {"fingerprint": None},
    "other fingerprint": {"fingerprint": "other"},
    "no templates": {"templates": None},
    "other templates": {"templates": '["a {}."]'},
    "templates a mapping": {"templates": "{}"},
    "format": {"format": "denserc.text_embeddings.9"},
    "more": {"more": "1"},
    "no digest": {"sha256.tensors": None},
    "other digest": {"sha256.tensors": "0" * 64},
}
VECTORS = {
    "flipped rows": lambda vectors: vectors.flip(0),
    "one bit": lambda vectors: torch.where(torch.arange(16).reshape(2, 8) == 3, torch.nextafter(vectors, vectors + 1),
                                           vectors),
    "NaN": lambda vectors: vectors * float("nan"),
    "a row less": lambda vectors: vectors[:1],
    "flat": lambda vectors: vectors.flatten(),
    "whole numbers": lambda vectors: vectors.int(),
    "complex": lambda vectors: vectors.cfloat(),
    "half": lambda vectors: vectors.half(),
    "empty": lambda vectors: vectors[:, :0],
}  # fmt: skip


@pytest.mark.parametrize("case", [*CHANGES, *VECTORS, "no vectors"])
def test_a_cache_is_believed_only_if_it_is_what_was_asked_for(tmp_path, case, caplog):
    right = embed_names(Tower(), ["cat", "dog"], TEMPLATES, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    with safe_open(file, "pt") as content:
        metadata = content.metadata()
    metadata = {key: value for key, value in {**metadata, **CHANGES.get(case, {})}.items() if value is not None}
    vectors = VECTORS.get(case, lambda vectors: vectors)(load_file(file)["vectors"]).contiguous()
    save_file({"other" if case == "no vectors" else "vectors": vectors}, file, metadata=metadata)
    tower = Tower()
    found = embed_names(tower, ["cat", "dog"], TEMPLATES, cache_dir=tmp_path)
    assert tower.seen and "the cache is not believed" in caplog.text and file.name in caplog.text
    assert torch.equal(found.vectors, right.vectors) and found.fingerprint == "one"
    caplog.clear()
    again = Tower()
    embed_names(again, ["cat", "dog"], TEMPLATES, cache_dir=tmp_path)  # the cache is whole again
    assert not again.seen and not caplog.text


@pytest.mark.parametrize("content", [b"", b"<html>", b"version https://git-lfs", bytes(100)])
def test_a_cache_that_is_another_file_is_made_again(tmp_path, content):
    embed_names(Tower(), ["cat"], TEMPLATES, cache_dir=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    tower = Tower()
    embed_names(tower, ["cat"], TEMPLATES, cache_dir=tmp_path)
    assert tower.seen


@pytest.mark.parametrize("case", sorted(CHANGES.keys() - {"other names", "other templates", "no digest"}))
def test_damaged_files_of_a_user_name_the_file(tmp_path, case):
    path = tmp_path / "e.safetensors"
    save_text_embeddings(path, embed_names(Tower(), ["cat", "dog"], TEMPLATES))
    with safe_open(path, "pt") as content:
        metadata = content.metadata()
    metadata = {key: value for key, value in {**metadata, **CHANGES[case]}.items() if value is not None}
    save_file(load_file(path), path, metadata=metadata)
    with pytest.raises(DataError, match=r"e\.safetensors"):
        load_text_embeddings(path)


def test_files_of_text_embeddings_of_older_versions_load(tmp_path):
    vectors = normalize(torch.arange(6.0).reshape(2, 3), dim=-1)
    metadata = {"format": "denserc.text_embeddings.1", "fingerprint": "f"}
    metadata |= {"names": json.dumps(["a", "b"]), "templates": json.dumps(["{}"])}
    save_file({"vectors": vectors}, tmp_path / "e.safetensors", metadata=metadata)
    assert torch.equal(load_text_embeddings(tmp_path / "e.safetensors").vectors, vectors)


@pytest.mark.parametrize(
    "content",
    [{"cat": torch.ones(3).cfloat()}, {"cat": torch.ones(3).int()}, {"cat": torch.full((3,), float("nan"))},
     {3: torch.ones(3)}, {"cat": torch.full((3,), 1e30)}, {"cat": torch.full((3,), 1e-30)}, {}, {"cat": [1.0]},
     {"cat": torch.ones(0)}, torch.ones(3), None],
)  # fmt: skip
def test_other_values_of_published_files_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "e.pt")
    with pytest.raises(DataError, match=r"e\.pt"):
        load_text_embeddings(tmp_path / "e.pt")


@pytest.mark.parametrize("rows", [np.ones((2, 4), complex), np.array(["a", "b"]), np.ones(2), np.ones((2, 4), bool),
                                  np.full((2, 4), np.nan), np.array([[None], [1]], object)])  # fmt: skip
def test_other_arrays_are_refused(tmp_path, rows):
    np.save(tmp_path / "e.npy", rows)
    with pytest.raises(DataError, match=r"e\.npy"):
        load_text_embeddings(tmp_path / "e.npy", names=["a", "b"])


def test_the_kind_of_a_file_is_told_by_content(tmp_path):
    embeddings = embed_names(Tower(), ["cat"], TEMPLATES)
    save_text_embeddings(tmp_path / "e.pt", embeddings)
    assert torch.equal(load_text_embeddings(tmp_path / "e.pt").vectors, embeddings.vectors)
    torch.save({"cat": torch.ones(4)}, tmp_path / "e.safetensors")
    assert load_text_embeddings(tmp_path / "e.safetensors").names == ("cat",)
