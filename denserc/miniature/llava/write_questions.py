"""Write scenes and questions about them in the formats of LLaVA, POPE, GQA and MME.

text.json                              stage 0: descriptions and questions, without pictures
captions.json, instruct.json           stages 1 and 2: LLaVA's JSON; pictures in train/
pope.jsonl, gqa.jsonl, mme.jsonl       question files; pictures in test/
pope/miniature_pope_{random,popular,adversarial}.json, gqa.json, mme/SUBTASK/*.txt     right answers
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...evaluation.mllm.pope import SPLITS
from ...structures.files import write_json, write_text
from ..scenes import Scene
from .questions import (
    CONTENT_QUESTION,
    Pair,
    Question,
    asked_names,
    describe,
    draw_scene,
    existence,
    negatives,
    open_questions,
    paired_questions,
    training_questions,
)

IMAGE = "<image>"
BENCHMARKS = ("pope", "gqa", "mme")
_TEXT, _TRAIN, _TEST = 11, 12, 13  # of the seeds: no other data set of the miniature world draws from these
_STRUCTURE = {"stuff": "verify", "position": "choose"}


@dataclass(frozen=True)
class QuestionSizes:
    """Numbers of scenes.

    Args:
        text: Scenes that are only described, for stage 0.
        train: Scenes with pictures, for stages 1 and 2.
        test: Scenes of the benchmarks.
    """

    text: int = 6000
    train: int = 4000
    test: int = 400


def write_questions(root: str | Path, *, seed: int = 0, sizes: QuestionSizes | None = None) -> dict[str, int]:
    """Write all files below `root`.

    Args:
        root: Folder, created if absent; its files are replaced.
        seed: Seed of all scenes and questions. The same seed and sizes give the same files.
        sizes: Numbers of scenes; the default if None.

    Returns:
        Number of questions per file of questions.
    """
    root, sizes = Path(root), sizes or QuestionSizes()
    text = [
        entry for index, scene, rng in _scenes(seed, _TEXT, sizes.text) for entry in _text_entries(index, scene, rng)
    ]
    captions, instructions = [], []
    for index, scene, rng in _scenes(seed, _TRAIN, sizes.train):
        image = _save(root, "train", index, scene)
        captions.append(_entry(f"caption {index}", image, f"{IMAGE}\n{CONTENT_QUESTION}", describe(scene)))
        instructions += [
            _entry(f"{one.kind} {index}.{position}", image, f"{IMAGE}\n{one.text}", one.answer)
            for position, one in enumerate(training_questions(scene, rng))
        ]
    for name, entries in (("text", text), ("captions", captions), ("instruct", instructions)):
        write_json(root / f"{name}.json", entries)
    test = _TestFiles()
    for index, scene, rng in _scenes(seed, _TEST, sizes.test):
        test.add(_save(root, "test", index, scene), scene, rng)
    counts = {"text": len(text), "captions": len(captions), "instruct": len(instructions)}
    return counts | test.write(root)


class _TestFiles:
    """Benchmarks, scene by scene."""

    def __init__(self):
        self.pope: dict[str, list[dict]] = {split: [] for split in SPLITS}
        self.gqa: list[dict] = []
        self.gqa_truth: dict[str, dict] = {}
        self.mme: list[dict] = []
        self.mme_truth: dict[str, str] = {}

    def add(self, image: str, scene: Scene, rng: np.random.Generator) -> None:
        """Ask about one scene: as many absent things as present ones for each split of POPE."""
        present = asked_names(scene, rng)
        for split in SPLITS:
            absent = negatives(scene, split, len(present), rng)
            for yes, no in zip(present, absent, strict=True):
                for one in (existence(yes, "yes"), existence(no, "no")):
                    lines = self.pope[split]
                    lines.append({"question_id": len(lines) + 1, "image": image, "text": one.text, "label": one.answer})
        for one in open_questions(scene, rng):
            self._add_gqa(image, one)
        for subtask, pair in paired_questions(scene, rng).items():
            self._add_mme(image, subtask, pair)

    def _add_gqa(self, image: str, one: Question) -> None:
        identity = f"{len(self.gqa):06d}"
        self.gqa.append({"question_id": identity, "image": image, "text": one.text})
        self.gqa_truth[identity] = {
            "imageId": Path(image).stem,
            "question": one.text,
            "answer": one.answer,
            "isBalanced": True,
            "types": {"structural": _STRUCTURE.get(one.kind, "query"), "detailed": one.kind},
        }

    def _add_mme(self, image: str, subtask: str, pair: Pair) -> None:
        name = Path(image).name
        self.mme += [{"question_id": f"{subtask}/{name}", "image": image, "text": one.text} for one in pair]
        lines = [f"{one.text}\t{one.answer.capitalize()}\n" for one in pair]
        self.mme_truth[f"{subtask}/{Path(name).stem}.txt"] = "".join(lines)

    def write(self, root: Path) -> dict[str, int]:
        """Write question files and right answers; numbers of questions."""
        asked = []
        for split, lines in self.pope.items():
            write_text(root / "pope" / f"miniature_pope_{split}.json", _lines(lines))
            asked += [{**{k: v for k, v in line.items() if k != "label"}, "category": split} for line in lines]
        write_text(root / "pope.jsonl", _lines(asked))
        write_text(root / "gqa.jsonl", _lines(self.gqa))
        write_json(root / "gqa.json", self.gqa_truth)
        write_text(root / "mme.jsonl", _lines(self.mme))
        for name, text in self.mme_truth.items():
            write_text(root / "mme" / name, text)
        return {"pope": len(asked), "gqa": len(self.gqa), "mme": len(self.mme)}


def _scenes(seed: int, part: int, count: int) -> Iterator[tuple[int, Scene, np.random.Generator]]:
    name = {_TEXT: "text", _TRAIN: "train", _TEST: "test"}[part]
    for index in tqdm(range(count), desc=f"questions/{name}", unit="scene"):
        rng = np.random.default_rng([seed, part, index])
        yield index, draw_scene(rng), rng


def _text_entries(index: int, scene: Scene, rng: np.random.Generator) -> list[dict]:
    description = f"scene : {describe(scene)}"
    asked = [Question("content", CONTENT_QUESTION, describe(scene)), *training_questions(scene, rng)]
    return [
        _entry(f"{one.kind} {index}.{position}", None, f"{description}\n{one.text}", one.answer)
        for position, one in enumerate(asked)
    ]


def _entry(identity: str, image: str | None, question: str, answer: str) -> dict:
    """One conversation of LLaVA's JSON."""
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": identity, **({} if image is None else {"image": image}), "conversations": turns}


def _save(root: Path, folder: str, index: int, scene: Scene) -> str:
    name = f"{folder}/{index:06d}.png"
    (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(scene.image).save(root / name, compress_level=1)
    return name


def _lines(entries: list[dict]) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)
