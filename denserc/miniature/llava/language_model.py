"""The miniature's language model: a word-level tokenizer and a llama of some million parameters."""

from dataclasses import dataclass

import torch
from detectron2.config import CfgNode
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ...structures import ConfigurationError
from ..world import COLOURS, SHAPES, STUFF, TEXTURES
from .questions import NUMBERS

_SPECIAL = ("<pad>", "<unk>", "</s>", "<image>")
_TEMPLATE_WORDS = ("USER:", "ASSISTANT:", "\n")
_QUESTION_WORDS = tuple(
    "what is in the scene ? : ; there a texture color shape thing how many things are left or right of yes no".split()
)
WORDS = (*_TEMPLATE_WORDS, *_QUESTION_WORDS, *TEXTURES, *COLOURS, *SHAPES, *STUFF, *NUMBERS)
"""Every word of templates, questions and answers, and the line break."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One id per word and line break; decoding joins them by spaces. No text gets a token in front."""
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys((*_SPECIAL, *WORDS)))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(" ", "removed")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        extra_special_tokens={"image_token": "<image>"},
        clean_up_tokenization_spaces=False,
    )


@dataclass(frozen=True)
class LlamaSizes:
    """Sizes of a llama.

    Args:
        width: Channels of a token.
        depth: Number of layers.
        heads: Attention heads; they divide the width.
        mlp_width: Channels inside a feed-forward network.

    Raises:
        ConfigurationError: A size below 1, or heads that do not divide the width.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int

    def __post_init__(self):
        if min(self.width, self.depth, self.heads, self.mlp_width) < 1 or self.width % self.heads:
            raise ConfigurationError(
                f"{self} is impossible: every size must be at least 1, and the heads must divide the width. Correct "
                "MODEL.LLAVA.LLAMA."
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> "LlamaSizes":
        """MODEL.LLAVA.LLAMA; ConfigurationError where it has not four sizes."""
        given = tuple(cfg.MODEL.LLAVA.LLAMA)
        if len(given) != 4:
            raise ConfigurationError(
                f"MODEL.LLAVA.LLAMA is {given}; expected are four sizes: channels, layers, heads, channels of the MLPs."
            )
        return cls(*given)


def build_language_model(
    tokenizer: PreTrainedTokenizerFast, sizes: LlamaSizes, *, positions: int, seed: int
) -> LlamaForCausalLM:
    """A llama with random weights of deviation 1 / sqrt(width).

    The usual 0.02 fits 2,500 channels. In a narrow model it leaves attention almost uniform for hundreds of steps.

    Args:
        tokenizer: Its tokenizer.
        sizes: Its sizes.
        positions: Longest sequence.
        seed: Seed of the weights.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp_width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        max_position_embeddings=positions,
        initializer_range=sizes.width**-0.5,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
