"""A DenseRC encoder as a vision tower of Hugging Face's LLaVA: frozen, in eval mode, without gradient.

Shape letters as in `denserc.encoders.towers.base`; C the channels of a token, by feature D, E or D + E.
"""

import logging

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..construction import Construction, DenseEncoder
from ..encoders import PositionResize, build_architecture
from ..structures import ConfigurationError, PixelStatistics, choose
from .configuration import DenseRCVisionConfig, VisionFeature
from .fingerprint import is_whole, require_fingerprint, weights

logger = logging.getLogger(__name__)


class DenseRCVisionModel(PreTrainedModel):
    """Normalized images -> tokens of a `VisionFeature`, row-major and without a class token.

    In LlavaConfig it needs `vision_feature_layer=-1` and `vision_feature_select_strategy="full"`. The weights are
    checked against the fingerprints of the configuration before the first forward pass, wherever they are whole in
    this process; `export.check_tower` compares them with a checkpoint.

    Args:
        config: Configuration made by `export.tower_config`.
        encoder: Encoder with its weights; None builds one that `from_pretrained` fills.

    Raises:
        ConfigurationError: The configuration names no encoder, or its sizes are not those of the encoder.
    """

    config_class = DenseRCVisionConfig
    base_model_prefix = "denserc"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    _no_split_modules = ["DenseRCVisionModel"]  # its encoder is used by other calls than forward

    def __init__(self, config: DenseRCVisionConfig, encoder: DenseEncoder | None = None):
        super().__init__(config)
        self.feature = choose(VisionFeature, config.feature, "feature of the vision tower")
        self.encoder = _build_encoder(config) if encoder is None else encoder
        _require_sizes(config, self.feature, self.encoder)
        # from_pretrained replaces buffers that are not part of a state dict by memory that nobody filled.
        self._built_buffers = [
            (module, name, module._buffers[name].detach().clone())
            for module in self.encoder.modules()
            for name in sorted(module._non_persistent_buffers_set)
            if module._buffers.get(name) is not None
        ]
        self._shapes = {name: value.shape for name, value in weights(self.encoder).items()}
        self._is_checked = False
        self.post_init()
        self.train(False)

    def forward(self, pixel_values: torch.Tensor, **ignored) -> BaseModelOutputWithPooling:
        """(B, 3, H, W) normalized images -> tokens (B, N, C), as the only entry of `hidden_states`.

        Args:
            pixel_values: Images, normalized with the statistics of the configuration.
            ignored: Whatever LLaVA and its Trainer pass to a vision tower.

        Raises:
            DataError: H or W is not a multiple of the patch size.
            FingerprintMismatchError: The weights are random or others'.
        """
        if not self._is_checked and not torch.compiler.is_compiling():
            self.check_weights()
        with torch.no_grad():
            tokens = self._tokens(pixel_values.to(self.dtype))
        return BaseModelOutputWithPooling(last_hidden_state=tokens, hidden_states=(tokens,))

    def train(self, mode: bool = True) -> "DenseRCVisionModel":
        """Stay in eval mode and without gradient, whatever `mode` is: LLaVA freezes its vision tower."""
        self.requires_grad_(False)
        return super().train(False)

    def check_weights(self) -> None:
        """Check the weights against the fingerprints of the configuration.

        Raises:
            FingerprintMismatchError: The weights are random or others'.
        """
        if is_whole(self.encoder, self._shapes):
            require_fingerprint(self.encoder, self.config.fingerprints, f"The vision tower {self.config.encoder}")
        else:
            logger.warning(
                "The weights of the vision tower are sharded or quantized, so their fingerprint was not checked."
            )
        self._is_checked = True

    def _tokens(self, images: torch.Tensor) -> torch.Tensor:
        dense = self.feature is not VisionFeature.PENULTIMATE
        layer = self.feature.layer(self.encoder.tower.depth)
        features, maps = self.encoder.forward_with_maps(images, [] if layer is None else [layer], dense=dense)
        parts = [*maps, features] if dense else maps
        return torch.cat([part.flatten(2) for part in parts], dim=1).transpose(1, 2).contiguous()  # (B, N, C)

    def _init_weights(self, module: nn.Module) -> None:
        """Restore non-persistent buffers. Weights stay as open_clip made them until a state dict fills them."""
        for owner, name, value in self._built_buffers:
            if owner is module:
                init.copy_(module._buffers[name], value)


def _build_encoder(config: DenseRCVisionConfig) -> DenseEncoder:
    """An encoder with weights still to be loaded. It is built off the meta device, where open_clip cannot build."""
    if not config.encoder or config.construction is None:
        raise ConfigurationError(
            "A DenseRCVisionConfig without encoder and construction describes no tower. Make one by "
            "`denserc export vision-tower` from a DenseRC checkpoint."
        )
    with torch.device("cpu"), torch.random.fork_rng(devices=[]):
        tower = build_architecture(config.encoder).image
        tower.pixels = PixelStatistics(config.pixel_mean, config.pixel_std)
        tower.position_resize = choose(PositionResize, config.position_resize, "position_resize")
        return DenseEncoder(tower, Construction.from_dict(config.construction))


def _require_sizes(config: DenseRCVisionConfig, feature: VisionFeature, encoder: DenseEncoder) -> None:
    given = {"hidden_size": config.hidden_size, "patch_size": config.patch_size, "layer": config.layer}
    expected = {
        "hidden_size": feature.channels(encoder),
        "patch_size": encoder.patch_size,
        "layer": feature.layer(encoder.tower.depth),
    }
    wrong = [f"{key} is {given[key]}, expected {expected[key]}" for key in given if given[key] != expected[key]]
    if wrong:
        raise ConfigurationError(
            f"The configuration of the vision tower does not fit {config.encoder} with the feature {feature.value!r}: "
            f"{'; '.join(wrong)}. Export the tower again instead of editing config.json."
        )
