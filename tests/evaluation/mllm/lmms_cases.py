"""Drawn answers, and what lmms-eval's functions make of them.

`python -m tests.evaluation.mllm.lmms_cases` writes the fixture again; it needs lmms-eval 0.7.3.
"""

import json
import random

from tests.paths import FIXTURES

FILE = FIXTURES / "evaluation" / "lmms_eval_0_7_3.json"
WORDS = (
    "a an the two none Ten yes no stop. STOP U.S. 3.5 1,000 5. .5 a-b x/y (c) coca-cola dont don't its it's she's "
    'shouldntve shouldn\'tve youre yall 7-up "quoted" @home red, what? 50% $5.00 #1 e.g. a'
).split()
SENTENCES = (
    "yes", "no", "Yes", "No", "Yes.", "No.", "YES", "Yes, it is.", "No, there is not.", "not", "nothing",
    "I do not know", "There is a dog", "It is yes", "know", "eyes", "", "unknown", " yes", "maybe no",
)  # fmt: skip


def drawn_cases() -> dict:
    """Answers by benchmark, the same on every call."""
    rng = random.Random(0)

    def text() -> str:
        words = rng.choices(WORDS, k=rng.randint(0, 4))
        return rng.choice((" ", " ", "", "\n")).join(words) + rng.choice(("", "", ".", "!", " ?", ";"))

    texts = [text() for _ in range(80)]
    soft = []
    for _ in range(40):
        words = rng.sample(texts, 6)
        answers = [rng.choice(words[: rng.randint(1, 6)]) for _ in range(10)]
        soft.append({"answer": rng.choice([*words[:3], words[0].upper()]), "answers": answers})
    return {
        "normalize": texts,
        "textvqa": soft,
        "gqa": [[rng.choice(("Left", "left.", "man", "Man", "women")), rng.choice(("left", "man"))] for _ in range(30)],
        "pope": [[rng.choice(("Yes", "No", "yes", "no")), rng.choice(("yes", "no"))] for _ in range(60)],
        "mme_answers": list(SENTENCES),
        "mme": [[rng.choice(SENTENCES), rng.choice(("Yes", "No")), number // 2] for number in range(60)],
        # Where lmms-eval's rules are others than LLaVA's.
        "pope_sentences": [[answer, "yes"] for answer in SENTENCES],
        "mme_letters": ["y", "n"],
        "gqa_punctuation": [["t-shirt", "tshirt"], ["left..", "left"], ["it's", "its"], ["left ", "left"]],
    }


def outcomes(cases: dict) -> dict:
    """Results of lmms-eval's functions."""
    from lmms_eval.api.metrics import exact_match_hf_evaluate
    from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor
    from lmms_eval.tasks.mme import utils as mme
    from lmms_eval.tasks.pope import utils as pope
    from lmms_eval.tasks.textvqa import utils as textvqa

    def soft(case: dict) -> float:
        document = {"question_id": 0, "answers": list(case["answers"])}  # changed in place
        return textvqa.textvqa_process_results(document, [case["answer"]])["exact_match"]

    def equal(pair: list[str]) -> bool:
        match = exact_match_hf_evaluate(*([one] for one in pair), ignore_case=True, ignore_punctuation=True)
        return bool(match["exact_match"])

    def pope_results(pairs: list) -> list[dict]:
        documents = [{"question_id": i, "answer": truth} for i, (_, truth) in enumerate(pairs)]
        return [
            pope.pope_process_results(document, [answer])["pope_accuracy"]
            for document, (answer, _) in zip(documents, pairs, strict=True)
        ]

    def mme_score(rows: list) -> float:
        results = []
        for answer, truth, picture in rows:
            document = {"question_id": picture, "answer": truth, "category": "count"}
            results += mme.mme_process_results(document, [answer]).values()
        return mme.mme_aggregate_results(results)

    counted = pope_results(cases["pope"])
    normalizer = EvalAIAnswerProcessor()
    return {
        "normalize": [normalizer(one) for one in cases["normalize"]],
        "textvqa": [soft(case) for case in cases["textvqa"]],
        "gqa": [equal(pair) for pair in cases["gqa"]],
        "pope": {
            "accuracy": pope.pope_aggregate_accuracy(counted),
            "precision": pope.pope_aggregate_precision(counted),
            "recall": pope.pope_aggregate_recall(counted),
            "F1": pope.pope_aggregate_f1_score(counted),
        },
        "pope_yes_ratio": pope.pope_aggregate_yes_ratio(counted),
        "mme_answers": [mme.parse_pred_ans(one) for one in cases["mme_answers"]],
        "mme": mme_score(cases["mme"]),
        "mme_letters": [mme.parse_pred_ans(one) for one in cases["mme_letters"]],
        "pope_sentences": [one["score"] for one in pope_results(cases["pope_sentences"])],
        "gqa_punctuation": [equal(pair) for pair in cases["gqa_punctuation"]],
    }


if __name__ == "__main__":
    drawn = drawn_cases()
    FILE.write_text(json.dumps({"cases": drawn, "outcomes": outcomes(drawn)}, indent=1) + "\n", encoding="utf-8")
