"""`denserc check-env`: versions, devices and missing parts, each with its fix."""

from .parsing import CommandParser

DESCRIPTION = """\
Report versions, devices and missing parts, each with its fix, and try DenseRC itself. Ends with 1 when something
required is missing or broken."""

EXAMPLES = """
denserc check-env
"""


def parser() -> CommandParser:
    """The options."""
    return CommandParser("check-env", DESCRIPTION, EXAMPLES)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 when something is broken."""
    parser().parse_args(arguments)

    from ..tools import check_env

    checks = check_env.run_checks()
    print(check_env.report(checks))
    return int(any(check.status is check_env.Status.BROKEN for check in checks))
