"""`denserc bench`: the benchmarks of a checkout."""

import subprocess
import sys
from pathlib import Path

from .parsing import CommandParser

DESCRIPTION = """\
Run the benchmarks and write their tables into benchmarks/README.md; half an hour on two cores. They are not in the
package: a checkout of the repository is needed. `python -m benchmarks.NAME` there runs one with its own options."""

EXAMPLES = """
denserc bench --quick
denserc bench --only dense_forward detector --device cuda
"""

CHECKOUT = Path(__file__).parents[2]


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("bench", DESCRIPTION, EXAMPLES)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that everything runs; writes nothing")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="some of them, e.g. dense_forward")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 if a benchmark could not be measured."""
    args = parser().parse_args(arguments)
    if not (CHECKOUT / "benchmarks" / "__main__.py").is_file():
        from ..structures import ConfigurationError

        raise ConfigurationError(
            f"There are no benchmarks beside {CHECKOUT / 'denserc'}: they are not in the installed package. "
            "Run `denserc bench` in an environment with an editable install of a checkout (`make env` there)."
        )
    command = [sys.executable, "-m", "benchmarks", "--device", args.device]
    command += ["--quick"] if args.quick else []
    command += ["--only", *args.only] if args.only else []
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode
