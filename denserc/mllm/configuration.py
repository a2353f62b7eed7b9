"""Configuration of a DenseRC encoder as a vision tower of Hugging Face's LLaVA."""

from enum import Enum

from transformers import PreTrainedConfig

from ..construction import Construction, DenseEncoder
from ..structures import ConfigurationError, choose
from ..structures.metadata import in_words, is_of
from ..structures.records import short

MODEL_TYPE = "denserc_vision"
_TYPES = {
    "encoder": str,
    "construction": dict | None,
    "image_size": int,
    "patch_size": int,
    "position_resize": str,
    "fingerprints": dict | None,
}


class VisionFeature(Enum):
    """Output of the encoder that enters LLaVA's projector. The output of the last block is not one of them."""

    PENULTIMATE = "penultimate"  # residual stream after block depth - 2, class token dropped
    DENSE = "dense"  # X_dense
    JOINED = "joined"  # both, penultimate first

    @property
    def reason(self) -> str:
        """Justification of the layer, written to config.json and to the log."""
        return _REASONS[self]

    def layer(self, depth: int) -> int | None:
        """Index of the block whose output is used, from 0; None if no residual map is used."""
        return None if self is VisionFeature.DENSE else depth - 2

    def channels(self, encoder: DenseEncoder) -> int:
        """Channels of a token: D, E or D + E."""
        return {
            VisionFeature.PENULTIMATE: encoder.width,
            VisionFeature.DENSE: encoder.embed_dim,
            VisionFeature.JOINED: encoder.width + encoder.embed_dim,
        }[self]


_REASONS = {
    VisionFeature.PENULTIMATE: (
        "The residual stream that enters the last block, as LLaVA-1.5 takes it from CLIP. The output of the last block "
        "is not used: no dense feature is made of it, so the distillation does not train it."
    ),
    VisionFeature.DENSE: "X_dense, the feature that the distillation trains, in the image-text space.",
    VisionFeature.JOINED: (
        "The residual stream that enters the last block and X_dense, joined on channels in this order."
    ),
}


class DenseRCVisionConfig(PreTrainedConfig):
    """Sizes, construction and identity of a vision tower; `export.tower_config` makes one from an encoder.

    Args:
        encoder: open_clip's name of the CLIP.
        construction: Plain values of `Construction.to_dict`.
        feature: Value of `VisionFeature`.
        layer: Block whose residual map is used, from 0; None for "dense".
        reason: Justification of the feature, for readers of config.json.
        hidden_size: Channels of a token that enters the projector: D, E or D + E by feature.
        image_size: Side in pixels of the square input.
        patch_size: Side of a patch in pixels.
        pixel_mean: Mean per RGB channel, of pixels in 0..1.
        pixel_std: Standard deviation per RGB channel.
        position_resize: Value of `PositionResize`.
        fingerprints: SHA-256 of the weights by dtype, see `fingerprint.fingerprints`.

    Raises:
        ConfigurationError: Unknown feature or construction, or an image size that is not a multiple of the patch size.
    """

    model_type = MODEL_TYPE
    base_config_key = "vision_config"

    encoder: str = ""
    construction: dict | None = None
    feature: str = VisionFeature.PENULTIMATE.value
    layer: int | None = None
    reason: str = ""
    hidden_size: int = 0
    image_size: int = 0
    patch_size: int = 1
    pixel_mean: list[float] | tuple[float, ...] = (0.0, 0.0, 0.0)
    pixel_std: list[float] | tuple[float, ...] = (1.0, 1.0, 1.0)
    position_resize: str = "bicubic"
    fingerprints: dict[str, str] | None = None

    def __post_init__(self, **kwargs):
        for name, expected in _TYPES.items():
            if not is_of(getattr(self, name), expected):
                raise ConfigurationError(
                    f"{name} of the vision tower is {short(getattr(self, name))}; expected is {in_words(expected)}. "
                    "Write the folder again by `denserc export vision-tower` or `denserc export llava`."
                )
        choose(VisionFeature, self.feature, "feature of the vision tower")
        require_multiple(self.image_size, self.patch_size)
        if self.construction is not None:
            Construction.from_dict(self.construction)
        super().__post_init__(**kwargs)

    @property
    def num_image_tokens(self) -> int:
        """Tokens per image at `image_size`."""
        return (self.image_size // self.patch_size) ** 2


def require_multiple(image_size: int, patch_size: int) -> None:
    """ConfigurationError where the patch size does not divide the side of the input, or is below 1."""
    if patch_size < 1:
        raise ConfigurationError(f"The patch size must be at least 1; got {patch_size}.")
    if image_size % patch_size:
        lower = image_size // patch_size * patch_size
        raise ConfigurationError(
            f"The image size {image_size} is not a multiple of the patch size {patch_size}; the nearest are "
            f"{lower} and {lower + patch_size}."
        )
