"""A LLaVA of a language model and a vision tower, with a projector that has still to be trained."""

import logging
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from ..structures import CheckpointError, ConfigurationError
from ..structures.atomic import written_by_others
from .checks import check_processor
from .configuration import VisionFeature
from .export import (
    VisionTower,
    build_image_processor,
    build_vision_tower,
    feature_selection,
    log_tower,
    published_state,
)
from .fingerprint import DTYPES

logger = logging.getLogger(__name__)

IMAGE_TOKEN = "<image>"


def build_llava(
    language_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    tower: VisionTower,
    *,
    seed: int = 0,
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA of a language model and a vision tower, with a projector that has still to be trained.

    The language model, its tokenizer and the tower are used, not copied: the tokenizer gets the token `<image>` and,
    where it has none, a padding token; the tower gets the language model's dtype.

    Args:
        language_model: Causal language model, such as Vicuna's.
        tokenizer: Its tokenizer.
        tower: Result of `build_vision_tower`.
        seed: Seed of the projector's initial weights.

    Returns:
        The model, and its processor.

    Raises:
        ConfigurationError: Not a causal language model, or one whose parts LlavaForConditionalGeneration cannot take.
    """
    base, head = getattr(language_model, "base_model", None), language_model.get_output_embeddings()
    if base is None or base is language_model or head is None:
        raise ConfigurationError(
            f"A causal language model with a head was expected, such as LlamaForCausalLM; got "
            f"{type(language_model).__name__}."
        )
    image_token = _add_image_token(language_model, tokenizer)
    head = language_model.get_output_embeddings()  # resizing made another
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=language_model.config,
        image_token_index=image_token,
        image_seq_length=(tower.config.image_size // tower.config.patch_size) ** 2,
        tie_word_embeddings=language_model.config.tie_word_embeddings,
        **feature_selection(tower),
    )
    dtype = language_model.dtype
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    if type(model.model.language_model) is not type(base):
        raise ConfigurationError(
            f"LLaVA needs a {type(model.model.language_model).__name__} for this configuration; the language model has "
            f"a {type(base).__name__}."
        )
    model.model.vision_tower = tower.to(dtype)
    model.model.language_model = base
    model.lm_head = head
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model.model.multi_modal_projector = LlavaMultiModalProjector(config).to(dtype)  # PyTorch's init, as LLaVA's
    model.config.dtype = dtype
    model.generation_config = language_model.generation_config
    model.config.text_config._name_or_path = ""  # no folder of this machine in config.json
    model.eval()
    processor = LlavaProcessor(
        image_processor=build_image_processor(tower),
        tokenizer=tokenizer,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1 if config.vision_feature_select_strategy == "default" else 0,
        image_token=IMAGE_TOKEN,
        chat_template=tokenizer.chat_template,
    )
    check_processor(processor, model)
    return model, processor


def export_llava(
    language_model: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    feature: VisionFeature | str = VisionFeature.PENULTIMATE,
    image_size: int | None = None,
    plain: bool = False,
    dtype: str = "auto",
    seed: int = 0,
) -> None:
    """Write a LLaVA folder: model, tokenizer and processor. Its projector has to be trained before any use.

    Args:
        language_model: Folder of a causal language model with its tokenizer, in Hugging Face's format.
        checkpoint: denserc.safetensors.
        output: Folder, created if absent.
        feature: Output that enters the projector.
        image_size: Side in pixels of the square input; the size that the CLIP was trained with if None.
        plain: Whether the tower is transformers' CLIPVisionModel, for OpenAI towers with "penultimate".
        dtype: "auto" (the language model's), "float32", "bfloat16" or "float16".
        seed: Seed of the projector's initial weights.

    Raises:
        CheckpointError: The checkpoint or the language model's folder cannot be read.
        ConfigurationError: An illegal option.
    """
    if dtype != "auto" and dtype not in DTYPES:
        raise ConfigurationError(f"dtype is {dtype!r}; legal are 'auto', {', '.join(map(repr, DTYPES))}.")
    tower = build_vision_tower(checkpoint, feature, image_size=image_size, plain=plain)
    log_tower(tower)
    if not Path(language_model).is_dir():
        raise CheckpointError(
            f"There is no folder {language_model}. Give a folder with a causal language model and its tokenizer in "
            "Hugging Face's format, such as a download of lmsys/vicuna-7b-v1.5."
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(language_model, extra_special_tokens={"image_token": IMAGE_TOKEN})
        text = AutoModelForCausalLM.from_pretrained(language_model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{language_model} cannot be read as a language model of Hugging Face with its tokenizer: {error}"
        ) from error
    model, processor = build_llava(text, tokenizer, tower, seed=seed)
    logger.warning(
        "!!! The projector has RANDOM WEIGHTS: train it (stage 1, then stage 2) before any use. A projector that was "
        "trained on another encoder does not fit either. docs/LLAVA.md describes both stages. !!!"
    )
    with written_by_others(output):
        model.save_pretrained(output, state_dict=published_state(model))
        processor.save_pretrained(output)


def _add_image_token(language_model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of `<image>`, added to the tokenizer and, as the mean of all, to the embeddings where they have no room."""
    if getattr(tokenizer, "image_token", None) != IMAGE_TOKEN:
        tokenizer.add_special_tokens({"extra_special_tokens": [IMAGE_TOKEN]}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token  # LLaVA-1.5 pads with <unk>
    token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    rows = language_model.get_input_embeddings().num_embeddings
    if token >= rows:
        language_model.resize_token_embeddings(token + 1, mean_resizing=False)
        with torch.no_grad():
            for embeddings in (language_model.get_input_embeddings(), language_model.get_output_embeddings()):
                embeddings.weight[rows:] = embeddings.weight[:rows].float().mean(0).to(embeddings.weight.dtype)
    return token
