"""Pictures, weights, embeddings and what a model is called with."""

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from . import world
from .damage import WRONG_VALUES, Content, damaged_bytes, damaged_states, damaged_trees
from .targets import require, target, written


@functools.cache
def _miniature():
    import denserc

    return denserc.load_model("miniature") if hasattr(denserc, "load_model") else denserc.Predictor("miniature").model


@target(
    "vocabulary",
    ["cat", "red cup"],
    damaged_trees(["cat", "red cup", "striped ball"])
    | st.lists(
        st.text(max_size=6)
        | st.sampled_from(["background", "Cat", "cat", "cat.", "cat ", "a, b", "word " * 100, *WRONG_VALUES[:20]]),
        max_size=4,
    )
    | st.text(max_size=8),
)
def _vocabulary(folder: Path, content: Any) -> None:
    model = _miniature()
    model.cache_dir = None
    model.set_vocabulary(content)
    require(not isinstance(content, str | dict), f"names {content!r}")


def _encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if kind == "TIFF float":
        image, kind = Image.fromarray(pixels[..., 0].astype(np.float32) / 255), "TIFF"
    if kind == "PNG 16":
        image, kind = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@target(
    "picture",
    _encoded("PNG"),
    st.one_of(
        *(
            damaged_bytes(_encoded(kind))
            for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "TIFF float", "PNG 16")
        )
    ),
)
def _picture(folder: Path, content: bytes) -> None:
    from denserc.data.images.reading import read_rgb

    pixels = read_rgb(written(folder, "damaged.png", content))
    require(
        pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size > 0, f"{pixels.shape}"
    )


@target(
    "model_input",
    ((3, 64, 64), "uint8"),
    st.tuples(
        st.sampled_from(
            [
                (3, 64, 64),
                (64, 64, 3),
                (64, 64),
                (4, 64, 64),
                (1, 64, 64),
                (3, 0, 64),
                (3, 1, 2000),
                (1, 3, 64, 64),
                (3,),
                (),
            ]
        ),
        st.sampled_from(
            [
                "uint8",
                "float32",
                "float64",
                "int64",
                "bool",
                "float16",
                "complex64",
                "numpy",
                "nan",
                "unit",
                "huge",
                "list",
                "none",
            ]
        ),
    ),
)
def _model_input(folder: Path, content: tuple) -> None:
    shape, kind = content
    image: Any = torch.zeros(shape) + 100
    made = {
        "numpy": lambda: image.numpy(),
        "nan": lambda: image * float("nan"),
        "unit": lambda: image / 255,
        "huge": lambda: image * 1e30,
        "list": lambda: image.tolist(),
        "none": lambda: None,
    }
    image = made[kind]() if kind in made else image.to(getattr(torch, kind))
    model = _miniature()
    if model.vocabulary is None or tuple(model.vocabulary.names) != ("cat",):
        model.cache_dir = None
        model.set_vocabulary(["cat"])
    with torch.no_grad():
        found = model([{"image": image, "height": 64, "width": 64}])[0]["instances"]
    require(bool(torch.isfinite(found.pred_boxes.tensor).all() and torch.isfinite(found.scores).all()), "not finite")


def _labels() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((48, 64), dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()


@target(
    "label_file",
    _labels(),
    damaged_bytes(_labels()) | damaged_bytes(_encoded("PNG")) | damaged_bytes(_encoded("PNG 16")),
)
def _label_file(folder: Path, content: bytes) -> None:
    from denserc.data.datasets.panoptic import read_segment_ids
    from denserc.data.images.labels import label_size, read_labels
    from denserc.structures import DataError

    path = written(folder, "damaged.png", content)
    for read in (read_labels, label_size, read_segment_ids):
        try:
            read(path)
        except DataError:
            continue


@functools.cache
def _clip_weights() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    from denserc.encoders.miniature import MINIATURE_WEIGHTS

    return load_file(MINIATURE_WEIGHTS)


def _pt(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return Content(file.getvalue())


def _safetensors(state: dict, metadata: dict | None = None) -> bytes:
    from safetensors.torch import save

    return Content(save({k: v.contiguous() for k, v in state.items() if isinstance(v, torch.Tensor)}, metadata))


# Containers that weights come in.
_FORMS = {
    "safetensors": lambda state: (_safetensors(state), ".safetensors"),
    "plain": lambda state: (_pt(state), ".pt"),
    "training": lambda state: (_pt({"state_dict": state, "epoch": 1}), ".pth"),
    "average": lambda state: (_pt({"model_ema": state}), ".pt"),
    "misnamed": lambda state: (_safetensors(state), ".pt"),
    "parallel": lambda state: (_pt({"module." + name: tensor for name, tensor in state.items()}), ".pt"),
    "list": lambda state: (_pt([state]), ".pt"),
    "nothing": lambda state: (_pt({"a": {"b": 1}}), ".pt"),
    "optimizer": lambda state: (_pt({"state_dict": state, "lr": np.float64(1.0)}), ".pt"),
}


@st.composite
def _clip_files(draw) -> tuple[bytes, str]:
    action = draw(st.integers(0, 3))
    if action == 0:
        return draw(damaged_bytes(_safetensors(_clip_weights()))), ".safetensors"
    if action == 1:
        return draw(damaged_bytes(_pt({"a": torch.zeros(3)}))), ".pt"
    return _FORMS[draw(st.sampled_from(sorted(_FORMS)))](draw(damaged_states(_clip_weights())))


@target("clip_weights", (_safetensors(_clip_weights()), ".safetensors"), _clip_files())
def _clip_file(folder: Path, content: tuple[bytes, str]) -> None:
    from denserc.encoders import build_clip

    clip = build_clip("DenseRC-Miniature", str(written(folder, f"damaged{content[1]}", content[0])))
    modules = [value for value in vars(clip).values() if isinstance(value, torch.nn.Module)] or [clip]
    for module in modules:
        for name, tensor in module.state_dict().items():
            require(not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()), f"weights {name}")


@functools.cache
def _packaged() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    import denserc.model_zoo as zoo

    with safe_open(Path(zoo.__file__).parent / "miniature.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})


@st.composite
def _damaged_metadata(draw, metadata: dict[str, str]) -> dict[str, str]:
    """Metadata of a safetensors file, some of whose values are JSON."""
    metadata = dict(metadata)
    for _ in range(draw(st.integers(1, 2))):
        key = draw(st.sampled_from(sorted(metadata)))
        try:
            value = json.loads(metadata[key])
        except ValueError:
            value = metadata[key]
        action = draw(st.sampled_from(["damage", "damage", "damage", "remove", "cut", "new"]))
        if action == "damage":
            damaged = draw(damaged_trees(value if isinstance(value, dict | list) else [value]))
            metadata[key] = json.dumps(damaged) if isinstance(value, dict | list) else str(damaged)
        elif action == "remove":
            del metadata[key]
        elif action == "cut":
            metadata[key] = metadata[key][: draw(st.integers(0, len(metadata[key])))]
        else:
            metadata["unknown"] = "x"
        if not metadata:
            break
    return {key: value.encode("utf-8", "replace").decode() for key, value in metadata.items()}


@target(
    "portable_model",
    _safetensors(*_packaged()),
    st.deferred(
        lambda: st.one_of(
            _damaged_metadata(_packaged()[1]).map(lambda meta: _safetensors(_packaged()[0], meta)),
            damaged_states(_packaged()[0]).map(lambda state: _safetensors(state, _packaged()[1])),
            damaged_bytes(_safetensors(*_packaged())),
        )
    ),
)
def _portable(folder: Path, content: bytes) -> None:
    from denserc.api import load_model

    model = load_model(written(folder, "damaged.safetensors", content))
    for name, tensor in model.state_dict().items():
        require(not tensor.is_floating_point() or bool(torch.isfinite(tensor).all()), f"weights {name}")


def _embeddings() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    vectors = torch.nn.functional.normalize(torch.arange(12.0).reshape(3, 4) + 1, dim=1)
    names = json.dumps([*world.BASE, *world.NOVEL])
    return {"vectors": vectors}, {
        "format": "denserc.text_embeddings.1",
        "names": names,
        "templates": '["a {}."]',
        "fingerprint": "x",
    }


@target(
    "text_embeddings",
    (_safetensors(*_embeddings()), ".safetensors"),
    st.one_of(
        _damaged_metadata(_embeddings()[1]).map(lambda meta: (_safetensors(_embeddings()[0], meta), ".safetensors")),
        damaged_states(_embeddings()[0]).map(lambda state: (_safetensors(state, _embeddings()[1]), ".safetensors")),
        damaged_bytes(_safetensors(*_embeddings())).map(lambda b: (b, ".safetensors")),
        damaged_trees({"cat": 1, "red cup": 2}).map(lambda tree: (_pt(tree), ".pt")),
        damaged_states({"cat": torch.ones(4), "red cup": torch.ones(4)}).map(lambda state: (_pt(state), ".pt")),
    ),
)
def _text_embeddings(folder: Path, content: tuple[bytes, str]) -> None:
    from denserc.data.vocabulary.text_embeddings import load_text_embeddings

    loaded = load_text_embeddings(written(folder, f"damaged{content[1]}", content[0]))
    require(bool(torch.isfinite(loaded.vectors).all()), "vectors that are not finite")
    require(all(isinstance(name, str) for name in loaded.names), f"names {loaded.names!r}")
