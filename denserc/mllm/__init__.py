"""DenseRC as a vision tower of Hugging Face's LLaVA. Importing it registers the model type `denserc_vision`.

It needs the extra `denserc[llava]`. A folder with such a tower loads by `from_pretrained` in any process that imported
this package, and only there.
"""

from .requirements import require_training_packages, require_transformers

require_transformers()

from transformers import AutoConfig, AutoModel  # noqa: E402

from .checks import check_processor, check_tower, find_tower  # noqa: E402
from .configuration import MODEL_TYPE, DenseRCVisionConfig, VisionFeature  # noqa: E402
from .export import build_image_processor, build_vision_tower, export_vision_tower  # noqa: E402
from .llava import build_llava, export_llava  # noqa: E402
from .vision_tower import DenseRCVisionModel  # noqa: E402

AutoConfig.register(MODEL_TYPE, DenseRCVisionConfig, exist_ok=True)
AutoModel.register(DenseRCVisionConfig, DenseRCVisionModel, exist_ok=True)

__all__ = [
    "DenseRCVisionConfig",
    "DenseRCVisionModel",
    "VisionFeature",
    "build_image_processor",
    "build_llava",
    "build_vision_tower",
    "check_processor",
    "check_tower",
    "export_llava",
    "export_vision_tower",
    "find_tower",
    "require_training_packages",
    "require_transformers",
]
