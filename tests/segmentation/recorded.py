"""Recordings of CAT-Seg's own modules (README.txt beside them), and this project's model with their weights.

Shape letters as in denserc.segmentation.modeling.
"""

import json
from pathlib import Path

import numpy as np
import open_clip
import torch

from denserc.config import get_denserc_config
from denserc.segmentation.convert import convert_model
from denserc.segmentation.modeling import aggregation
from denserc.segmentation.modeling.meta_arch import CATSeg
from tests.paths import CONFIGS, DATA, FIXTURES

WHOLE = DATA / "fixtures" / "catseg"
FOLDER = WHOLE if WHOLE.is_dir() else FIXTURES / "catseg"  # the latter has fewer arrays
VOCABULARY, CONTEXT = 49408, 77


class Recordings:
    """Arrays of a folder of recordings, and comparisons with them."""

    def __init__(self, folder: Path = FOLDER):
        self.folder = folder
        self.config = self.json("config")
        self.manifest = self.json("manifest")
        self._files = {}

    def json(self, name: str) -> dict:
        """Content of a JSON file."""
        return json.loads((self.folder / f"{name}.json").read_text())

    def file(self, name: str) -> dict[str, np.ndarray]:
        """Arrays of a file; empty where the folder does not have it."""
        if name not in self._files:
            path = self.folder / f"{name}.npz"
            self._files[name] = dict(np.load(path)) if path.is_file() else {}
        return self._files[name]

    def tensor(self, file: str, name: str) -> torch.Tensor:
        """An array as it is, float16 as float32."""
        value = self.file(file)[name]
        return torch.from_numpy(value.astype(np.float32) if value.dtype == np.float16 else value)

    def difference(self, file: str, name: str, given: torch.Tensor) -> float:
        """max |given - recorded| over the sample, divided by the recommended tolerance.

        Where `given` is NaN, nothing is compared; otherwise mean and rms of the whole array are checked too.
        """
        entry, recorded = self.manifest[f"{file}.npz"][name], self.file(file)[name]
        assert list(given.shape) == list(entry["shape"]), (name, tuple(given.shape), entry["shape"])
        sampled = given.detach()[tuple(slice(None, None, step) for step in entry.get("sample") or ())].numpy()
        assert sampled.shape == recorded.shape, name
        known = ~np.isnan(sampled)
        assert known.any(), name
        worst = np.abs(sampled - recorded)[known].max() / entry["atol"]
        if known.all() and not torch.isnan(given).any() and given.ndim and "mean" in entry:
            whole = given.detach().double()
            worst = max(worst, abs(float(whole.mean()) - entry["mean"]) / entry["atol"])
            worst = max(worst, abs(float(whole.pow(2).mean().sqrt()) - entry["rms"]) / entry["atol"])
        return float(worst)

    def published_state(self) -> dict[str, torch.Tensor]:
        """The weights in the format of a published file, with shift masks and rows of the token embedding filled up."""
        state = {key: self.tensor("weights", key) for key in self.file("weights")}
        ids, rows = state.pop("token_ids").long(), state.pop("token_rows")
        tokens = torch.zeros(VOCABULARY, rows.shape[1])
        tokens[ids] = rows
        state["sem_seg_head.predictor.clip_model.token_embedding.weight"] = tokens
        return state


def register_clip(config: dict, folder: Path) -> str:
    """Make open_clip know the recorded CLIP; returns its name."""
    name, clip = f"DenseRC-Test-CATSeg-{config['name']}", config["clip"]
    vision = {
        "image_size": clip["native_size"],
        "layers": clip["v_layers"],
        "width": clip["v_width"],
        "head_width": clip["v_width"] // clip["v_heads"],
        "patch_size": clip["patch"],
    }
    text = {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "width": clip["t_width"],
        "heads": clip["t_heads"],
        "layers": clip["t_layers"],
    }
    content = {"embed_dim": clip["embed_dim"], "quick_gelu": True, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{name}.json").write_text(json.dumps(content))
    open_clip.add_model_config(folder / f"{name}.json")
    return name


def aggregator_options(head: dict) -> dict:
    """Arguments of Aggregator from the recorded configuration."""
    return {
        "embed_dim": head["appearance_guidance_dim"],
        "channels": head["hidden_dim"],
        "appearance_channels": head["appearance_guidance_proj_dim"],
        "text_channels": head["text_guidance_proj_dim"],
        "num_layers": head["num_layers"],
        "num_heads": head["num_heads"],
        "window": head["window_size"],
        "decoder_channels": head["decoder_dims"],
        "guidance_channels": head["decoder_guidance_dims"],
        "projected_channels": head["decoder_guidance_proj_dims"],
        "training_pooling": head["pooling_sizes_train"],
        "test_pooling": head["pooling_sizes_test"],
        "class_limit": head["pad_len"],
    }


def recorded_config(config: dict, encoder: str, *options):
    """The published recipe with the recorded sizes."""
    head, sliding = config["head"], config["sliding"]
    cfg = get_denserc_config()
    cfg.merge_from_file(str(CONFIGS / "Base-CATSeg.yaml"))
    cfg.MODEL.ENCODER.NAME = encoder
    cfg.MODEL.CONSTRUCTION.NAME = "catseg"
    cfg.MODEL.DEVICE = "cpu"
    catseg = cfg.MODEL.CATSEG
    catseg.DENSE_FEATURES = "raw"
    catseg.INPUT_SIZE, catseg.BLOCKS = config["clip_resolution"], config["layer_indexes"]
    catseg.HIDDEN_DIM, catseg.NUM_LAYERS, catseg.NUM_HEADS = head["hidden_dim"], head["num_layers"], head["num_heads"]
    catseg.APPEARANCE_DIM, catseg.TEXT_DIM = head["appearance_guidance_proj_dim"], head["text_guidance_proj_dim"]
    catseg.SWIN_WINDOW, catseg.ATTENTION, catseg.CLASS_LIMIT = (
        head["window_size"],
        head["attention_type"],
        head["pad_len"],
    )
    catseg.POOLING_TRAIN, catseg.POOLING_TEST = head["pooling_sizes_train"], head["pooling_sizes_test"]
    catseg.DECODER_DIMS, catseg.GUIDANCE_DIMS = head["decoder_dims"], head["decoder_guidance_dims"]
    catseg.PROJECTED_DIMS = head["decoder_guidance_proj_dims"]
    catseg.WINDOWS.SIDE, catseg.WINDOWS.OVERLAP = sliding["kernel"], sliding["overlap"]
    catseg.WINDOWS.CANVAS = sliding["out"]
    assert config["template"] == "A photo of a {} in the scene"
    cfg.merge_from_list(list(options))
    return cfg


def recorded_model(recordings: Recordings, encoder: str, *options) -> CATSeg:
    """CATSeg with the recorded weights, through the conversion of published files."""
    cfg = recorded_config(recordings.config, encoder, *options)
    return convert_model(recordings.published_state(), cfg, "the recordings").model


def normalized(model: CATSeg, image: torch.Tensor) -> torch.Tensor:
    """A picture in 0..255 as the model normalizes it."""
    return (image.to(model.pixel_mean.dtype) - model.pixel_mean) / model.pixel_std


def training_pass(model: CATSeg, recordings: Recordings) -> tuple[torch.Tensor, "Stages"]:
    """(loss, stages) of the recorded batch."""
    model.train()
    model.set_vocabulary(recordings.config["classes_train"])
    images, targets = (recordings.tensor("inputs", f"train_{name}") for name in ("images", "targets"))
    batch = [{"image": image, "sem_seg": target} for image, target in zip(images, targets, strict=True)]
    with Stages(model, tuple(recordings.config["layer_indexes"])) as stages:
        loss = model(batch)["loss_sem_seg"]
    return loss, stages


EVALUATIONS = {  # recording: (picture, size of the result, classes, options)
    "eval_plain": (
        "plain_image", "plain_size", "classes_test",
        ("MODEL.CATSEG.WINDOWS.ENABLED", False, "MODEL.CATSEG.WHOLE_PICTURE", "padded"),
    ),
    "eval_slide": ("slide_image", "slide_size", "classes_test", ()),
    "eval_slide_many": ("slide_image", "slide_size", "classes_many", ()),
}  # fmt: skip


def evaluation_pass(make, recordings: Recordings, file: str, *options, dtype: torch.dtype = torch.float32):
    """(model, "sem_seg", stages) of a recorded evaluation.

    Args:
        make: See the fixture make_recorded.
    """
    picture, size, classes, own = EVALUATIONS[file]
    model = make(*own, *options).to(dtype).eval()
    model.set_vocabulary(recordings.config[classes])
    if dtype is torch.float64:  # embeddings are kept in float32
        with torch.no_grad():
            model.class_embeddings.vectors = model.train().text_features()
        model.eval()._pending = None
    height, width = recordings.config[size]
    one = {"image": recordings.tensor("inputs", picture), "height": height, "width": width}
    with Stages(model, tuple(recordings.config["layer_indexes"])) as stages:
        (result,) = model([one])
    return model, result["sem_seg"], stages


class Stages:
    """Everything that the recordings name, taken from a model while it runs; calls are joined along the batch."""

    def __init__(self, model: CATSeg, blocks: tuple[int, ...]):
        self._found: dict[str, list[torch.Tensor]] = {}
        self._undo = []
        tower, aggregator = model.encoder.tower, model.aggregator
        self._hook(tower.visual.ln_pre, "visual_ln_pre")
        self._hook(tower.visual.ln_post, "visual_ln_post", _without_class_token)
        block = tower.block

        def recorded_block(index, stream):
            result = block(index, stream)
            if index in blocks:
                self._keep(f"visual_block_{index}", result[0].tokens)
            return result

        tower.block = recorded_block
        self._undo.append(lambda: delattr(tower, "block"))
        for i, up in enumerate(model.guidance_upsamplers):
            self._hook(up, f"upsample{i + 1}")
        self._watch_aggregator(aggregator)

    def _watch_aggregator(self, aggregator):
        def channels_first(x):  # (B, T, h, w, C) -> (B, C, T, h, w)
            return x.permute(0, 4, 1, 2, 3)

        cost_volume = aggregation.cost_volume

        def recorded_cost(dense, text):
            cost = cost_volume(dense, text)
            self._keep("image_in", dense)
            self._keep("visual_dense", _without_class_token(dense.flatten(2).transpose(1, 2)))
            self._keep("text_in", text.expand(len(dense), *text.shape))
            self._keep("cost_volume", cost)
            return cost

        aggregation.cost_volume = recorded_cost
        self._undo.append(lambda: setattr(aggregation, "cost_volume", cost_volume))
        embed = aggregator._embed

        def recorded_embedding(cost):
            result = embed(cost)
            self._keep("conv1", channels_first(result))
            return result

        aggregator._embed = recorded_embedding
        self._undo.append(lambda: delattr(aggregator, "_embed"))
        self._hook(aggregator.appearance_projection, "guidance_projection")
        self._hook(aggregator.text_projection, "text_guidance_projection", lambda x: x[None])
        for i, projection in enumerate(aggregator.guidance_projections):
            self._hook(projection, f"decoder_guidance_projection_{i}")
        for i, layer in enumerate(aggregator.layers):
            self._hook(layer.spatial.guidance_norm, f"layer{i}_guidance_norm", lambda x: x.permute(0, 3, 1, 2))
            self._hook(layer.spatial.blocks[0], f"layer{i}_swin_block_1", channels_first)
            self._hook(layer.spatial, f"layer{i}_spatial", channels_first)
            self._hook(layer.classes.attention, f"layer{i}_class_attention", lambda x: x.flatten(0, 1))
            self._hook(layer, f"layer{i}_class", channels_first)
        self._hook(aggregator.decoders[0].up, "decoder1_up")
        for i, decoder in enumerate(aggregator.decoders):
            self._hook(decoder, f"decoder{i + 1}")
        self._hook(aggregator, "logits")

    def _hook(self, module, name, change=lambda x: x):
        handle = module.register_forward_hook(lambda _, __, output: self._keep(name, change(output)))
        self._undo.append(handle.remove)

    def _keep(self, name, value):
        self._found.setdefault(name, []).append(value.detach())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for undo in self._undo:
            undo()

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.cat(self._found[name])

    def shaped(self, name: str, shape: list[int]) -> torch.Tensor:
        """A stage in the recorded shape: what is not computed here, such as padding tokens, is NaN."""
        value = self[name]
        if name == "decoder1_up":
            value = value.unflatten(0, (shape[0], -1))
        if name == "text_guidance_projection":
            value = value[:1].expand(shape[0], -1, -1)
        if name.endswith("class_attention"):
            rest = value.new_full((len(value), shape[1] - value.shape[1], value.shape[2]), torch.nan)
            value = torch.cat([value, rest], dim=1)
        return value


def _without_class_token(patches: torch.Tensor) -> torch.Tensor:
    """(B, N, C) -> (B, 1 + N, C), the class token NaN."""
    return torch.cat([torch.full_like(patches[:, :1], torch.nan), patches], dim=1)
