"""Named choices of the training; without torch and transformers, so that the config keys can name them."""

from enum import Enum


class TrainedParts(Enum):
    """Parts of a LLaVA that learn. The vision tower never does."""

    PROJECTOR = "projector"  # stage 1
    LANGUAGE_MODEL = "projector_and_language_model"  # stage 2
    LORA = "projector_and_lora"  # stage 2 by low-rank adapters: another recipe, with other figures


class Aspect(Enum):
    """From a picture of any aspect to the tower's square."""

    PAD = "pad"  # centered on a square of the mean color: stage 2 and evaluation
    CROP = "crop"  # short side to the square's, then its center: stage 1


class LossAverage(Enum):
    """Weights of the tokens in the loss of a step."""

    FORWARD = "forward"  # mean over the tokens of each forward pass, then over the passes of a step: LLaVA
    TOKENS = "tokens"  # mean over all tokens of a step, whatever passes and processes it is divided into


DTYPES = ("auto", "float32", "bfloat16", "float16")
"""Types of a model's weights when it answers; "auto" is that of its folder."""
