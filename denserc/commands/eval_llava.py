"""`denserc eval llava`: answers to POPE, GQA, TextVQA and MME, scored without a model."""

import json

from .choices import LLAVA_BENCHMARKS
from .parsing import CommandParser

DESCRIPTION = """\
Score answers to POPE, GQA, TextVQA or MME by LLaVA's rules, from files and without a model. Answers are JSON Lines of
{question_id, prompt, text}, as `denserc answer` and LLaVA write them. docs/LLAVA.md describes rules and files."""

EXAMPLES = """
denserc eval llava --benchmark pope --answers pope.jsonl --questions llava_pope_test.jsonl --annotations coco/
denserc eval llava --benchmark pope --answers random.jsonl --annotations coco_pope_random.json
denserc eval llava --benchmark gqa --answers gqa.jsonl --annotations testdev_balanced_questions.json
denserc eval llava --benchmark textvqa --answers textvqa.jsonl --annotations TextVQA_0.5.1_val.json
denserc eval llava --benchmark mme --answers mme.jsonl --annotations MME_Benchmark_release_version
denserc eval llava --benchmark mme --answers eval_tool/answers/llava-v1.5-7b
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("eval llava", DESCRIPTION, EXAMPLES)
    parser.add_argument("--benchmark", required=True, choices=LLAVA_BENCHMARKS, help="rules and files to use")
    parser.add_argument(
        "--answers", required=True, metavar="FILE", help="answers; for mme also a folder of its results"
    )
    parser.add_argument(
        "--annotations",
        nargs="+",
        default=[],
        metavar="FILE",
        help="the benchmark's own files: POPE's (or their folder), GQA's or TextVQA's JSON, MME's folder",
    )
    parser.add_argument("--questions", metavar="FILE", help="pope: the question file with 'category' that was answered")
    parser.add_argument("--output-dir", metavar="DIR", help="folder for BENCHMARK_results.json and .md")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Raises:
        ConfigurationError: The benchmark needs other files.
        DataError: A file breaks its format, or files do not belong to each other.
    """
    args = parser().parse_args(arguments)

    from ..structures.files import finite_or_null
    from ..tools.score_llava import save, score, table_of
    from ..visualization import print_table

    results = score(args.benchmark, args.answers, args.annotations, args.questions)
    if args.output_dir is not None:
        save(args.output_dir, args.benchmark, results)
    if args.json:
        print(json.dumps(finite_or_null(results), indent=2))
    else:
        print_table(table_of(args.benchmark, results))
