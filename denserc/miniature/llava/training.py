"""The three stages of the miniature, by the trainer of the full size on packed sequences."""

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from ...llava import engine
from ...llava.conversations import read_conversations
from ...llava.options import LossAverage
from ...llava.templates import require_template
from ...llava.trainer import LlavaTrainer, training_arguments
from ...structures import choose
from .features import StoredTokens, tokens_as_pictures
from .language_model import LlamaSizes, build_language_model, build_tokenizer
from .packing import PackedCollator, PackedDataset

logger = logging.getLogger(__name__)


def train_language_model(cfg: CfgNode) -> dict[str, float]:
    """Stage 0: train a language model from nothing on text and write it with its tokenizer to OUTPUT_DIR/model.

    Returns:
        {"steps", "loss": mean over the steps, "parameters"}.
    """
    conversations = read_conversations(cfg.LLAVA.DATA.FILES, cfg.LLAVA.DATA.IMAGES)
    template = require_template(conversations, cfg.LLAVA.TEMPLATE)
    seed_all_rng(cfg.SEED)
    tokenizer = build_tokenizer()
    model = build_language_model(tokenizer, LlamaSizes.from_config(cfg), positions=cfg.LLAVA.MAX_LENGTH, seed=cfg.SEED)
    trainer = LlavaTrainer(
        model=model,
        args=training_arguments(cfg, 1, cfg.SEED),
        train_dataset=PackedDataset(
            conversations,
            template=template,
            tokenizer=tokenizer,
            image_ids=(),
            max_length=cfg.LLAVA.MAX_LENGTH,
            tokens=None,
        ),
        data_collator=PackedCollator(tokenizer.pad_token_id),
        processing_class=tokenizer,
        average=choose(LossAverage, cfg.LLAVA.LOSS_AVERAGE, "LLAVA.LOSS_AVERAGE"),
    )
    trained = trainer.train()
    folder = Path(cfg.OUTPUT_DIR) / engine.FINAL
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return {"steps": trained.global_step, "loss": trained.training_loss, "parameters": model.num_parameters()}


def train_stage(cfg: CfgNode, tokens: StoredTokens | None) -> dict[str, float]:
    """Stage 1 or 2 by the engine of the full size, on packed sequences and stored tokens.

    Args:
        cfg: Configuration of the stage.
        tokens: Tokens of the training pictures; None trains without pictures, for the blind model.

    Returns:
        {"steps", "loss": mean over the steps}.
    """
    with ExitStack() as until_trained:
        factory = partial(packed_data, tokens=tokens, until_trained=until_trained)
        return engine.run(cfg, data_factory=factory)["training"]


def packed_data(
    *, cfg: CfgNode, conversations: list, template, model, processor, tokens, until_trained: ExitStack
) -> tuple[PackedDataset, PackedCollator]:
    """Data of `engine.run`. Until the training ends, the model's tower hands on stored tokens."""
    until_trained.enter_context(tokens_as_pictures(model))
    data = PackedDataset(
        conversations,
        template=template,
        tokenizer=processor.tokenizer,
        image_ids=[processor.image_token_id] * engine.picture_tokens(model),
        max_length=cfg.LLAVA.MAX_LENGTH,
        tokens=tokens,
    )
    return data, PackedCollator(processor.tokenizer.pad_token_id)
