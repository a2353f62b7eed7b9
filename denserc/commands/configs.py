"""`denserc configs`: the packaged configs."""

from .parsing import CommandParser, show

DESCRIPTION = """\
List the packaged configs, or print one. `train`, `eval` and `distill` take the names wherever they take a file; so does
the _BASE_ of a config of your own."""

EXAMPLES = """
denserc configs
denserc configs ovcoco_vitb16
denserc configs ovcoco_vitb16 --path
"""


def parser() -> CommandParser:
    """The options."""
    parser = CommandParser("configs", DESCRIPTION, EXAMPLES)
    parser.add_argument("name", nargs="?", help="a config to print; by default all are listed")
    parser.add_argument("--path", action="store_true", help="print the path of the file")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    args = parser().parse_args(arguments)

    from .. import model_zoo

    if args.name:
        file = model_zoo.get_config_file(args.name)
        show(str(file) if args.path else file.read_text(encoding="utf-8").rstrip("\n"))
        return
    files = {name: model_zoo.get_config_file(name) for name in model_zoo.list_configs()}
    width = max(map(len, files))
    lines = [f"{name:<{width}}  {title(file.read_text(encoding='utf-8'))}".rstrip() for name, file in files.items()]
    show("\n".join(map(str, files.values()) if args.path else lines))


def title(text: str) -> str:
    """The first sentence of the comment that a config begins with, or ""."""
    first = text.partition("\n")[0]
    return first.lstrip("# ").rstrip(".:") if first.startswith("#") else ""
