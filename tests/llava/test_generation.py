"""Answers of a tiny LLaVA: equal to the plain way, resumable to the byte, refused before the model is loaded."""

import json

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="needs denserc[llava]")

from PIL import Image
from transformers import AutoProcessor, LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from denserc import cli
from denserc.llava import generation
from denserc.llava.generation import Answerer, GenerationSettings, answer_questions, folder_fingerprint
from denserc.mllm import export_llava
from denserc.structures import CheckpointError, ConfigurationError, DataError
from tests.llava.conftest import make_tokenizer
from tests.mllm.conftest import FAMILIES, write_checkpoint

COUNT = 6
SETTINGS = GenerationSettings(max_new_tokens=5)
WORDS = ("red", "blue", "two", "thing")


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    """Folder of a tiny LLaVA with random weights, over the packaged miniature tower."""
    folder = tmp_path_factory.mktemp("generation")
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "language_model")
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=512, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.5,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder / "language_model")
    checkpoint = write_checkpoint(folder / "denserc.safetensors", FAMILIES["eva"], weights="packaged")
    export_llava(folder / "language_model", checkpoint, folder / "llava")
    return folder / "llava"


@pytest.fixture
def task(tmp_path):
    """Question file and folder of pictures, none of them square."""
    (tmp_path / "images").mkdir()
    draw = np.random.default_rng(0)
    lines = []
    for number in range(COUNT):
        pixels = draw.integers(0, 256, (20 + 4 * number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        text = f"is there a {WORDS[number % len(WORDS)]} thing\nanswer it"
        lines.append({"question_id": number, "image": f"{number}.png", "text": text, "category": "random"})
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "q.jsonl", tmp_path / "images"


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_answers_are_those_of_the_processor_and_generate(llava, task, tmp_path):
    questions, images = task
    assert answer_questions(llava, questions, images, tmp_path / "a.jsonl", settings=SETTINGS) == COUNT
    model = LlavaForConditionalGeneration.from_pretrained(llava).eval()
    processor = AutoProcessor.from_pretrained(llava)
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. "
    )
    expected = []
    for question in lines_of(questions):
        text = f"{system}USER: <image>\n{question['text']} ASSISTANT:"
        inputs = processor(images=Image.open(images / question["image"]), text=text, return_tensors="pt")
        made = model.generate(**inputs, do_sample=False, max_new_tokens=5)
        expected.append(processor.decode(made[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    answers = lines_of(tmp_path / "a.jsonl")
    assert [line["text"] for line in answers] == expected
    assert len(set(expected)) > 1  # pictures and questions matter
    assert [line["question_id"] for line in answers] == list(range(COUNT)) and answers[0]["model_id"] == "llava"


def test_the_folders_sampling_is_not_used(llava):
    model, processor = LlavaForConditionalGeneration.from_pretrained(llava).eval(), AutoProcessor.from_pretrained(llava)
    pixels = np.zeros((30, 40, 3), np.uint8)
    answerer = Answerer(model, processor, SETTINGS)
    plain = answerer("is it red", pixels)
    own = model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty, own.max_new_tokens = True, 5.0, 9.0, 1
    assert [answerer("is it red", pixels) for _ in range(3)] == [plain] * 3
    assert model.generation_config is own


def test_an_interrupted_run_ends_with_the_same_bytes(llava, task, tmp_path, monkeypatch):
    questions, images = task
    answer_questions(llava, questions, images, tmp_path / "whole.jsonl", settings=SETTINGS)
    asked = []
    answer = Answerer.__call__

    def interrupted(self, question, pixels):
        asked.append(question)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return answer(self, question, pixels)

    monkeypatch.setattr(Answerer, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer_questions(llava, questions, images, tmp_path / "cut.jsonl", settings=SETTINGS)
    assert len(lines_of(tmp_path / "cut.jsonl")) == 3
    with (tmp_path / "cut.jsonl").open("r+b") as file:
        file.truncate((tmp_path / "cut.jsonl").stat().st_size - 20)
    assert answer_questions(llava, questions, images, tmp_path / "cut.jsonl", settings=SETTINGS) == COUNT - 2
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    monkeypatch.setattr(generation, "load_llava", None)  # nothing is left to do: no model is loaded
    assert answer_questions(llava, questions, images, tmp_path / "cut.jsonl", settings=SETTINGS) == 0


@pytest.mark.slow
def test_two_processes_write_the_same_file(llava, task, tmp_path):
    questions, images = task
    answer_questions(llava, questions, images, tmp_path / "one.jsonl", settings=SETTINGS, device="cpu")
    answered = answer_questions(
        llava, questions, images, tmp_path / "two.jsonl", settings=SETTINGS, device="cpu", processes=2
    )
    assert answered == COUNT
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    (images / "3.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="3.png cannot be read"):
        answer_questions(llava, questions, images, tmp_path / "bad.jsonl", settings=SETTINGS, device="cpu", processes=2)


def test_absent_pictures_are_reported_before_the_model_is_loaded(llava, task, tmp_path, monkeypatch):
    questions, images = task
    monkeypatch.setattr(generation, "load_llava", None)
    (images / "1.png").unlink()
    (images / "4.png").unlink()
    with pytest.raises(DataError, match=r"2 of 6 pictures do not exist; no question was asked") as error:
        answer_questions(llava, questions, images, tmp_path / "a.jsonl", settings=SETTINGS)
    assert f"{images / '4.png'} ({questions}, line 5)" in str(error.value)
    assert not (tmp_path / "a.jsonl").exists()


def test_another_model_does_not_continue_the_file(llava, task, tmp_path):
    questions, images = task
    (tmp_path / "q1.jsonl").write_text(questions.read_text().splitlines(True)[0])
    answer_questions(llava, tmp_path / "q1.jsonl", images, tmp_path / "a.jsonl", settings=SETTINGS)
    before = (tmp_path / "a.jsonl").read_bytes()
    model, processor = LlavaForConditionalGeneration.from_pretrained(llava), AutoProcessor.from_pretrained(llava)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    model.save_pretrained(tmp_path / "other")
    processor.save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigurationError, match="line 1 was not written by this model .* its fingerprint is"):
        answer_questions(tmp_path / "other", questions, images, tmp_path / "a.jsonl", settings=SETTINGS)
    with pytest.raises(ConfigurationError, match="its max_new_tokens is 5, this run's is 128"):
        answer_questions(llava, questions, images, tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_bytes() == before


def test_a_language_model_alone_is_refused(llava, task, tmp_path):
    questions, images = task
    with pytest.raises(CheckpointError, match="model_type 'llama', expected is 'llava'"):
        answer_questions(llava.parent / "language_model", questions, images, tmp_path / "a.jsonl", settings=SETTINGS)
    assert not (tmp_path / "a.jsonl").exists()


def test_the_fingerprint_covers_weights_and_configuration(llava, tmp_path):
    model, processor = LlavaForConditionalGeneration.from_pretrained(llava), AutoProcessor.from_pretrained(llava)
    model.save_pretrained(tmp_path / "copy")
    processor.save_pretrained(tmp_path / "copy")
    first = folder_fingerprint(tmp_path / "copy")
    (tmp_path / "copy" / "trainer_state.json").write_text("{}")
    assert folder_fingerprint(tmp_path / "copy") == first
    config = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(config | {"projector_hidden_act": "relu"}))
    assert folder_fingerprint(tmp_path / "copy") != first
    with pytest.raises(CheckpointError, match="has no weights; expected is a folder of `denserc export llava`"):
        folder_fingerprint(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"template": "vicuna"}, "legal are"),
        ({"template": "plain"}, "does not contain the question"),
        ({"dtype": "int8"}, "legal are auto, float32"),
        ({"max_new_tokens": 0}, "expected is at least 1"),
    ],
)
def test_illegal_settings_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        GenerationSettings(**options)


def test_commands_answer_and_score(llava, task, tmp_path, capsys):
    questions, images = task
    labels = [line | {"text": line["text"].split("\n")[0], "label": "yes"} for line in lines_of(questions)]
    (tmp_path / "coco_pope_random.json").write_text("".join(json.dumps(line) + "\n" for line in labels))
    words = f"answer --model {llava} --questions {questions} --images {images} --answers {tmp_path / 'a.jsonl'}"
    assert cli.main([*words.split(), "--max-new-tokens", "3", "--dtype", "float32", "--device", "cpu"]) == 0
    assert f"{COUNT} questions answered" in capsys.readouterr().out
    words = f"eval llava --benchmark pope --answers {tmp_path / 'a.jsonl'} --questions {questions} --json --annotations"
    assert cli.main([*words.split(), str(tmp_path / "coco_pope_random.json")]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["pope_random"]["questions"] == COUNT and results["pope_random"]["recall"] > 0
