"""`denserc answer`: answers of a LLaVA to a question file."""

from .choices import LLAVA_DTYPES, LLAVA_TEMPLATES
from .parsing import CommandParser

DESCRIPTION = """\
Answer questions about pictures by a LLaVA: greedy, one question at a time, the picture padded to a square. Questions
are JSON Lines of {question_id, image, text}. Answers are LLaVA's {question_id, prompt, text, ...}, on disk as they
come. The same command continues an interrupted run. It needs denserc[llava]. `denserc eval llava` scores the file."""

EXAMPLES = """
denserc answer --model output/llava/model --questions llava_pope_test.jsonl --images val2014/ --answers pope.jsonl
denserc answer --model output/llava/model --questions llava_gqa_testdev_balanced.jsonl --images gqa/images/ \\
    --answers gqa.jsonl --processes 8 --dtype float16
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("answer", DESCRIPTION, EXAMPLES)
    parser.add_argument(
        "--model", required=True, metavar="DIR", help="LLaVA of a training or of `denserc export llava`"
    )
    parser.add_argument("--questions", required=True, metavar="FILE", help="question file, JSON Lines")
    parser.add_argument("--images", required=True, metavar="DIR", help="folder that 'image' is relative to")
    parser.add_argument("--answers", required=True, metavar="FILE", help="answer file to write or to continue")
    parser.add_argument(
        "--checkpoint", default="", metavar="FILE", help="denserc.safetensors that the tower must equal"
    )
    parser.add_argument("--template", default="vicuna_v1", choices=LLAVA_TEMPLATES, help="prompt (default: vicuna_v1)")
    parser.add_argument("--max-new-tokens", type=int, default=128, help="longest answer in tokens (default: 128)")
    parser.add_argument("--dtype", default="auto", choices=LLAVA_DTYPES, help="weight type (default: the folder's)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument(
        "--processes", type=int, default=1, help="processes with a model each, one per GPU (default: 1)"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command.

    Raises:
        ConfigurationError: Packages are absent, or the answer file was begun by another model.
        DataError: Pictures are absent, or a file breaks its format.
        CheckpointError: The folder is not a LLaVA.
    """
    args = parser().parse_args(arguments)

    from detectron2.utils.logger import setup_logger

    from ..tools.answer import answer

    setup_logger(name="denserc")
    answered = answer(args)
    print(f"{answered} questions answered; the file is {args.answers}")
