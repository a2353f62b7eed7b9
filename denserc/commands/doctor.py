"""`denserc doctor`: faults of a data set, with what to do."""

import json
import sys

from .parsing import CommandParser

DESCRIPTION = """\
Find faults in data sets, with advice: files, sizes, boxes, masks, crowds, categories, classes, duplicates, and images
that train and val share. Some images are read, all of them with --all. Ends with 1 where there is an error; warnings
and notes end with 0."""

EXAMPLES = """
denserc doctor birds.yaml
denserc doctor ov_coco_2017_train_base ov_coco_2017_val --all
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("doctor", DESCRIPTION, EXAMPLES)
    parser.add_argument("targets", nargs="+", help="registered sets, or YAML descriptions of your own")
    parser.add_argument("--sample", type=int, default=100, help="images to read per set (default: 100)")
    parser.add_argument("--all", action="store_true", help="read all images")
    parser.add_argument("--embeddings", default="", metavar="FILE", help="text embeddings to be used with the set")
    parser.add_argument(
        "--checkpoint", default="", metavar="FILE", help="denserc.safetensors whose text tower made the embeddings"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where a set has an error."""
    args = parser().parse_args(arguments)

    from rich.console import Console

    from ..construction import read_metadata
    from ..data.checks import Severity
    from ..tools.doctor import diagnose, print_diagnosis
    from ..tools.region_entries import registered_names

    names = registered_names(args.targets)
    fingerprint = read_metadata(args.checkpoint).text_fingerprint if args.checkpoint else ""
    sample = 0 if args.all else max(args.sample, 1)
    diagnosis = diagnose(names, sample=sample, embeddings=args.embeddings, fingerprint=fingerprint)
    number = {s: sum(f.severity is s for one in diagnosis.values() for f in one.findings) for s in Severity}
    if args.json:
        sets = {n: {"summary": d.summary, "findings": [f.to_dict() for f in d.findings]} for n, d in diagnosis.items()}
        print(json.dumps({"sets": sets, "errors": number[Severity.ERROR]}, indent=2))
    else:
        print_diagnosis(diagnosis, Console() if sys.stdout.isatty() else Console(width=160))
        print(", ".join(f"{count} {severity.value}{'' if count == 1 else 's'}" for severity, count in number.items()))
    return int(number[Severity.ERROR] > 0)
