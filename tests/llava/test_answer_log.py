"""The answer file: written line by line, repaired, merged from several processes, and of one model only."""

import json

import pytest

from denserc.evaluation.mllm import Question, read_answers
from denserc.llava.answer_log import AnswerLog
from denserc.structures import ConfigurationError, DataError

ORIGIN = {"fingerprint": "abc", "max_new_tokens": 8}


def question(name, text="Red?"):
    return Question(f"q.jsonl, line {name}", str(name), "a.png", text, "", name)


QUESTIONS = [question(1), question(2), question("p", "What?"), question("p", "What?"), question("p", "Why?")]


def log_in(folder, questions=QUESTIONS, **changes):
    return AnswerLog(folder / "answers" / "a.jsonl", questions, ORIGIN | changes, "llava")


def write(log, positions, process=0, processes=1, text="yes"):
    log.resume()  # creates the folder
    with log.open(process, processes) as file:
        for position in positions:
            log.write(file, position, f"{text} {position}")


def test_a_line_has_llavas_fields(tmp_path):
    log = log_in(tmp_path)
    write(log, [0])
    (line,) = map(json.loads, log.path.read_text().splitlines())
    assert list(line) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert (line["question_id"], line["prompt"], line["text"], line["model_id"]) == (1, "Red?", "yes 0", "llava")
    assert line["metadata"] == {"made_by": ORIGIN} and len(line["answer_id"]) == 22


def test_remaining_questions_are_named(tmp_path):
    log = log_in(tmp_path)
    assert log.resume() == [0, 1, 2, 3, 4]
    write(log, [3, 0])
    assert log.resume() == [1, 3, 4]  # the same question twice: the first place is taken
    assert [one.text for one in read_answers(log.path)] == ["yes 0", "yes 3"]  # in the order of the questions


def test_a_cut_last_line_is_asked_again(tmp_path, caplog):
    log = log_in(tmp_path)
    write(log, [0, 1])
    whole = log.path.read_bytes()
    for cut in (1, 10, len(whole.splitlines(True)[1]) - 1):
        log.path.write_bytes(whole[:-cut])
        assert log.resume() == [1, 2, 3, 4]
        assert log.path.read_bytes() == whole.splitlines(True)[0]
    assert "the last line was cut off" in caplog.text


def test_parts_are_merged_whatever_their_number(tmp_path):
    alone = log_in(tmp_path / "alone")
    write(alone, range(5))
    shared = log_in(tmp_path / "shared")
    write(shared, [0])
    for process, positions in enumerate(([4, 1], [3], [2])):
        with shared.open(process, 3) as file:
            for position in positions:
                shared.write(file, position, f"yes {position}")
    assert shared.resume() == []
    texts = [[one.text for one in read_answers(log.path)] for log in (alone, shared)]
    assert sorted(texts[0]) == sorted(texts[1]) and texts[1][:2] == ["yes 0", "yes 1"]
    assert [file.name for file in shared.path.parent.iterdir()] == ["a.jsonl"]


def test_the_same_answer_twice_is_kept_once(tmp_path):
    """As after a merge that was killed before it removed the parts."""
    log = log_in(tmp_path)
    write(log, [0, 1])
    log.part(0, 2).write_bytes(log.path.read_bytes())
    assert log.resume() == [2, 3, 4] and len(read_answers(log.path)) == 2
    with log.open(0, 2) as file:
        log.write(file, 0, "another")
    with pytest.raises(DataError, match="one more answer to 'question_id' '1' .* it differs: 'another'"):
        log.resume()


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"fingerprint": "xyz"},
            "line 1 was not written by this model .*: its fingerprint is 'abc', this run's is 'xyz'",
        ),
        ({"max_new_tokens": 9}, "its max_new_tokens is 8, this run's is 9.*Name another answer file"),
        ({"dtype": "auto"}, "its dtype is None, this run's is 'auto'"),
    ],
)
def test_another_model_or_setting_is_refused(tmp_path, changes, message):
    write(log_in(tmp_path), [0])
    before = (tmp_path / "answers" / "a.jsonl").read_bytes()
    with pytest.raises(ConfigurationError, match=message):
        log_in(tmp_path, **changes).resume()
    assert (tmp_path / "answers" / "a.jsonl").read_bytes() == before


def test_a_file_of_another_program_is_refused(tmp_path):
    log = log_in(tmp_path)
    write(log, [0])
    line = json.loads(log.path.read_text()) | {"metadata": {}}
    log.path.write_text(json.dumps(line) + "\n")
    with pytest.raises(ConfigurationError, match="it names no model, so another program wrote it"):
        log.resume()


def test_answers_of_another_question_file_are_refused(tmp_path):
    write(log_in(tmp_path), [1])
    with pytest.raises(
        DataError, match="line 1 answers 'question_id' '2', 'Red.', which the question file does not have"
    ):
        log_in(tmp_path, QUESTIONS[:1]).resume()


def test_a_damaged_line_is_named(tmp_path):
    log = log_in(tmp_path)
    write(log, [0, 1])
    log.path.write_text("{oh\n" + log.path.read_text())
    with pytest.raises(DataError, match="a.jsonl, line 1: not JSON"):
        log.resume()


def test_an_empty_file_is_begun(tmp_path):
    log = log_in(tmp_path)
    log.path.parent.mkdir()
    log.path.write_text("")
    assert log.resume() == [0, 1, 2, 3, 4]
