"""Stages of `denserc demo --llava`: questions, language model, and a LLaVA per encoder and feature."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from transformers.utils.logging import disable_progress_bar

from ...config import read_config
from ...evaluation.mllm.gqa import evaluate_gqa
from ...evaluation.mllm.mme import evaluate_mme
from ...evaluation.mllm.pope import evaluate_pope
from ...llava.build import load_llava
from ...llava.engine import FINAL
from ...mllm import export_llava
from ...structures import cached_result
from ...structures.files import file_digest
from ..llava.answering import PackedAnswerer, answer_files
from ..llava.features import StoredTokens, make_stores
from ..llava.training import train_language_model, train_stage
from ..llava.write_questions import BENCHMARKS, QuestionSizes, write_questions
from .stages import CONTENDERS, Contender, Places, find_config

CLIP, DENSERC = (next(one for one in CONTENDERS if one.key == key) for key in ("clip", "denserc"))
MME_SUBTASKS = ("existence", "count", "position", "color")
"""Subtasks of MME's perception that the miniature world has questions for."""


@dataclass(frozen=True)
class LlavaVariant:
    """One LLaVA of the comparison.

    Args:
        title: Row.
        contender: Encoder. The blind model has the undistilled CLIP, and is never shown a picture.
        feature: Output of the encoder that enters the projector; "" for the blind model.
    """

    title: str
    contender: Contender
    feature: str

    @property
    def is_blind(self) -> bool:
        """True if no picture is shown."""
        return not self.feature

    @property
    def key(self) -> str:
        """Folder."""
        return "blind" if self.is_blind else f"{self.contender.key}_{self.feature}"


def variants(features: Sequence[str]) -> list[LlavaVariant]:
    """Both encoders with each feature, then the blind model."""
    return [
        LlavaVariant(contender.title if len(features) == 1 else f"{contender.title}: {feature}", contender, feature)
        for feature in features
        for contender in (CLIP, DENSERC)
    ] + [LlavaVariant("blind: no picture", CLIP, "")]


def questions_folder(places: Places) -> Path:
    """Scenes and questions."""
    return places.output / "llava" / "questions"


def stage_folder(places: Places, seed: int, name: str) -> Path:
    """Folder of the language model ("text") or of a variant."""
    return places.output / f"seed{seed}" / "llava" / name


def make_questions(places: Places, sizes: QuestionSizes | None = None) -> dict:
    """Write scenes and questions, the same for all seeds of training."""
    sizes, folder = sizes or QuestionSizes(), questions_folder(places)
    return cached_result(folder / "questions.json", str(sizes), lambda: write_questions(folder, sizes=sizes))


def make_language_model(places: Places, seed: int, overrides: Sequence = ()) -> dict:
    """Stage 0: one language model per seed, which all variants start from."""
    folder = stage_folder(places, seed, "text")
    cfg = _config(places, "text", folder, seed, "text.json", overrides)

    def compute() -> dict:
        _quiet()
        shutil.rmtree(folder, ignore_errors=True)
        return train_language_model(cfg)

    return cached_result(
        folder / "result.json", f"{cfg.dump()} {file_digest(questions_folder(places) / 'text.json')}", compute
    )


def make_llava(places: Places, variant: LlavaVariant, seed: int, overrides: Sequence = ()) -> dict:
    """Train both stages of a variant, answer the benchmarks and score the answers; the blind model has no stage 1.

    Returns:
        {"align", "instruct": steps and loss, "pope_SPLIT", "gqa", "mme_SUBTASK": metrics, "questions", "seconds"}.
    """
    folder, encoder = stage_folder(places, seed, variant.key), places.encoder(seed, variant.contender)
    language_model = stage_folder(places, seed, "text") / FINAL
    start, aligned = folder / "start", folder / "align" / FINAL
    align = _config(places, "align", folder / "align", seed, "captions.json", ["MODEL.WEIGHTS", str(start), *overrides])
    weights = str(start if variant.is_blind else aligned)
    instruct = _config(
        places, "instruct", folder / "instruct", seed, "instruct.json", ["MODEL.WEIGHTS", weights, *overrides]
    )

    def compute() -> dict:
        _quiet()
        shutil.rmtree(folder, ignore_errors=True)  # an interrupted run would leave its curves in metrics.json
        feature = variant.feature or "penultimate"
        export_llava(language_model, encoder, start, feature=feature, seed=seed)
        stores = dict.fromkeys(("train", "test")) if variant.is_blind else _stores(places, start, encoder, feature)
        result = {} if variant.is_blind else {"align": train_stage(align, stores["train"])}
        result["instruct"] = train_stage(instruct, stores["train"])
        return result | _answered(places, folder, instruct, stores["test"])

    key = f"{variant.key} {align.dump()} {instruct.dump()} {_questions_key(places)} {file_digest(encoder)}"
    return cached_result(folder / "result.json", f"{key} {file_digest(language_model / 'model.safetensors')}", compute)


def answers_file(places: Places, seed: int, variant: LlavaVariant, benchmark: str) -> Path:
    """Answers of a variant."""
    return stage_folder(places, seed, variant.key) / "answers" / f"{benchmark}.jsonl"


def _answered(places: Places, folder: Path, cfg: CfgNode, tokens: StoredTokens | None) -> dict:
    """Answers written and scored by the scorers of the full size."""
    model, processor = load_llava(Path(cfg.OUTPUT_DIR) / FINAL)
    answerer = PackedAnswerer(model, processor, template=cfg.LLAVA.TEMPLATE, tokens=tokens)
    root, answers = questions_folder(places), folder / "answers"
    files = {root / f"{name}.jsonl": answers / f"{name}.jsonl" for name in BENCHMARKS}
    return {
        "questions": answer_files(answerer, root, files),
        **evaluate_pope(answers / "pope.jsonl", [root / "pope"], root / "pope.jsonl"),
        **evaluate_gqa(answers / "gqa.jsonl", root / "gqa.json"),
        **{name: score for name, score in evaluate_mme(answers / "mme.jsonl", root / "mme").items() if name != "mme"},
    }


def _stores(places: Places, start: Path, encoder: Path, feature: str) -> dict[str, StoredTokens]:
    """Tokens of all pictures; seeds with the same encoder share them."""
    folder = places.output / "llava" / "tokens" / f"{file_digest(encoder)[:16]}_{feature}"
    pictures, splits = questions_folder(places), ("train", "test")

    def compute() -> dict:
        model, processor = load_llava(start)
        make_stores(model, processor, pictures, folder, splits)
        return {}

    cached_result(folder / "tokens.json", _questions_key(places), compute)
    return {split: StoredTokens(folder / f"{split}.npy", pictures / split) for split in splits}


def _quiet() -> None:
    """Leave the terminal to the progress bars of the stages."""
    disable_progress_bar()  # of every folder that is read or written
    logging.getLogger("denserc.mllm.llava").setLevel(logging.ERROR)  # the warning of a projector still to be trained


def _questions_key(places: Places) -> str:
    return "".join(file_digest(questions_folder(places) / name) for name in ("instruct.json", "pope.jsonl"))


def _config(places: Places, stage: str, folder: Path, seed: int, data: str, overrides: Sequence) -> CfgNode:
    root = questions_folder(places)
    settings = {
        "OUTPUT_DIR": str(folder),
        "SEED": seed,
        "LLAVA.DATA.FILES": (str(root / data),),
        "LLAVA.DATA.IMAGES": str(root),
    }
    words = [word for pair in settings.items() for word in pair]
    return read_config(find_config(places, f"miniature/llava_{stage}.yaml"), [*words, *overrides])
