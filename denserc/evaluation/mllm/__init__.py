"""LLaVA's benchmarks scored from files by its own rules: POPE, GQA, TextVQA, MME. No model, torch or transformers."""

from .answers import Answer, Question, read_answers, read_questions
from .gqa import evaluate_gqa
from .mme import evaluate_mme
from .pope import PopeCounts, evaluate_pope
from .textvqa import evaluate_textvqa

__all__ = [
    "Answer",
    "PopeCounts",
    "Question",
    "evaluate_gqa",
    "evaluate_mme",
    "evaluate_pope",
    "evaluate_textvqa",
    "read_answers",
    "read_questions",
]
