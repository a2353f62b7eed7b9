"""--eval-only of the LLaVA project: questions answered, resumed and scored by a configuration."""

import importlib.util
import json

import pytest
from detectron2.engine import default_argument_parser

from denserc.structures import ConfigurationError
from denserc.tools.evaluate_llava import answer_and_score
from tests.llava.conftest import instructions, llava_config, start, tokenizer  # noqa: F401  (fixtures)
from tests.paths import ROOT

pytest.importorskip("transformers", reason="needs denserc[llava]")


def main(*arguments):
    path = ROOT / "projects" / "LLaVA" / "train_net.py"
    spec = importlib.util.spec_from_file_location("llava_train_net", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(default_argument_parser().parse_args(list(arguments)))


def settings(folder, images):
    """Two POPE questions and the keys that name them."""
    lines = [
        {"question_id": i, "image": f"{i}.png", "text": "is it red", "category": "random", "label": label}
        for i, label in enumerate(("yes", "no"))
    ]
    (folder / "coco_pope_random.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    questions = [{key: line[key] for key in ("question_id", "image", "text", "category")} for line in lines]
    (folder / "pope.jsonl").write_text("".join(json.dumps(line) + "\n" for line in questions))
    keys = {"QUESTIONS": folder / "pope.jsonl", "IMAGES": images, "ANNOTATIONS": folder / "coco_pope_random.json"}
    words = [word for key, path in keys.items() for word in (f"LLAVA.TEST.{key}", (str(path),))]
    return [*words, "LLAVA.TEST.BENCHMARKS", ("pope",), "LLAVA.TEST.MAX_NEW_TOKENS", 2]


def test_train_and_evaluate_by_the_command_line(tmp_path, start, instructions):  # noqa: F811
    words = settings(tmp_path, instructions[1])
    cfg = llava_config(tmp_path / "out", start, instructions, "SOLVER.MAX_ITER", 1, *words)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    config = ("--config-file", str(tmp_path / "config.yaml"))
    results = main(*config)
    assert results["training"]["steps"] == 1 and 0 <= results["pope_random"]["F1"] <= 100
    folder = tmp_path / "out" / "inference" / "pope"
    answers = (folder / "answers.jsonl").read_text()
    assert [json.loads(line)["question_id"] for line in answers.splitlines()] == [0, 1]
    assert (folder / "pope_results.md").is_file()
    again = main(*config, "--eval-only", "--resume")
    assert again == {task: row for task, row in results.items() if task != "training"}
    assert (folder / "answers.jsonl").read_text() == answers


def test_lists_of_different_lengths_are_refused(tmp_path, start, instructions):  # noqa: F811
    words = settings(tmp_path, instructions[1])
    cfg = llava_config(tmp_path / "out", start, instructions, *words, "LLAVA.TEST.IMAGES", ())
    with pytest.raises(ConfigurationError, match="LLAVA.TEST.IMAGES has 0 entries, LLAVA.TEST.QUESTIONS has 1"):
        answer_and_score(cfg, start / "start")
