"""Every command line of the documents and of the helps is legal: parsed by its own parser, never run.

Checked: commands, options and their choices, configs, KEY VALUE pairs, names of data sets, make's targets and
variables, scripts and modules. The tutorials are also run, by `tests/tools/test_tutorial.py`.
"""

import argparse
import importlib.util
import re
import runpy
import shlex
import sys
from collections.abc import Sequence

import pytest
from detectron2.data import DatasetCatalog
from torch.distributed.run import get_args_parser as torchrun_parser

from denserc import cli
from denserc.config import read_config
from denserc.data.datasets.builtin import register_all
from denserc.model_zoo import find_config_file, get_config_file
from denserc.structures import ConfigurationError
from tests.documented_commands import (
    INLINE,
    KEY_VALUE,
    PAGES,
    Command,
    commands_in,
    help_commands,
    inline_code,
    names_in_prose,
    names_used,
    page_commands,
    prose,
    python_blocks,
    resolve,
)
from tests.paths import ROOT

NOT_CHECKED = {
    "head": "prints a file that earlier commands write; tests/tools/test_tutorial.py runs it",
    "pip": "installs from the network",
    "git": "needs the network",
    "cd": "a folder of the reader",
    "source": "an environment of the reader",
}
"""Programs whose lines cannot be checked, and the reason."""

READERS_FILES = {"my.yaml", "cfg.yaml", "my_catseg.yaml", "catseg_four_sets.yaml"}
"""Config files that the reader writes; the keys beside them are checked against the defaults."""

READERS_SETS = {"my_set_val", "birds_val"}
"""Data sets that the reader registers elsewhere."""

READERS_VARIABLES = {"MORE": ""}
"""Shell variables that the reader sets: further config keys."""

NEED_EXTRA = ("denserc.mllm", "denserc.llava")
"""Packages with modules that import transformers."""

PLACEHOLDERS = {"LINE", "..."}
"""Words for KEY VALUE pairs that are elsewhere on the page, where they are checked as running text."""

PAGE_COMMANDS = page_commands()
HELP_COMMANDS = help_commands()
INLINE_COMMANDS = inline_code(INLINE)
PAIRS = inline_code(KEY_VALUE)


class Parsed(BaseException):
    """Ends a program when it has parsed its arguments; no `except Exception` of the program catches it."""

    def __init__(self, options: argparse.Namespace):
        super().__init__()
        self.options = options


@pytest.fixture(scope="module", autouse=True)
def registered_sets(tmp_path_factory):
    """The built-in data sets, without files."""
    register_all(tmp_path_factory.getbasetemp() / "no_data")


@pytest.fixture(autouse=True)
def only_parse(monkeypatch):
    """Parsers end the program; the current folder is the checkout."""
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)

        def parse(parser, *arguments, original=original, **named):
            raise Parsed(original(parser, *arguments, **named))

        monkeypatch.setattr(argparse.ArgumentParser, name, parse)
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.chdir(ROOT)


def words_of(command: Command) -> list[str]:
    """The words of a command, without comments, environment variables, and what comes after a pipe."""
    variables = {**READERS_VARIABLES, **command.variables}
    unknown = set(re.findall(r"\$\{?(\w+)", command.text)) - variables.keys()
    assert not unknown, f"{command.place}: the page sets no variable {sorted(unknown)}"
    text = re.sub(r"\$\{?(\w+)\}?", lambda match: variables[match[1]], command.text)
    words = shlex.split(text, comments=True)
    for separator in ("|", "&&", ";", ">", "&"):
        words = words[: words.index(separator)] if separator in words else words
    while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
        words.pop(0)
    return words


def options_of(words: Sequence[str]) -> argparse.Namespace | None:
    """The words as the program's own parser reads them; None for --help and --version.

    Raises:
        SystemExit: The parser refuses them; its message is on stderr.
    """
    program, *rest = words
    try:
        if program == "denserc":
            return _ended(cli.main(rest))
        if program == "torchrun":
            return _under_torchrun(rest)
        if program == "accelerate":
            return options_of(["python", *rest[rest.index("--config_file") + 2 :]])
        assert program in ("python", "python3"), f"no way to check {program!r}; add it to NOT_CHECKED with a reason"
        return _python(rest)
    except Parsed as end:
        return end.options
    except SystemExit as end:
        if end.code in (0, None):
            return None
        raise


def _ended(status: int | None) -> None:
    """A program that ended without parsing has shown its help, or refused its words."""
    if status:
        raise SystemExit(status)


def _python(words: Sequence[str]) -> None:
    if words[0] != "-m":
        sys.argv = list(words)
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        return
    name, *rest = words[1:]
    if name == "denserc":
        _ended(cli.main(rest))
    module = importlib.import_module(name)
    module = module if hasattr(module, "main") else importlib.import_module(f"{name}.__main__")
    module.main(rest)


def _under_torchrun(words: Sequence[str]) -> argparse.Namespace | None:
    try:
        torchrun_parser().parse_args(list(words))
    except Parsed as end:
        given = end.options
    script = ["-m"] if given.module else []
    return options_of(["python", *script, given.training_script, *given.training_script_args])


def check_configs(options: argparse.Namespace) -> None:
    """Configs exist, keys exist and have legal values, data sets have names that are registered."""
    opts = [word for word in getattr(options, "opts", None) or [] if word not in PLACEHOLDERS]
    opts += getattr(options, "set", None) or []
    files = getattr(options, "config_file", None) or []
    files = [files] if isinstance(files, str) else files
    others = [value for key, value in vars(options).items() if key.endswith("_config") or key == "config"]
    for file in [name for name in others if isinstance(name, str) and name]:
        _read(file, ())
    sets = []
    for cfg in [_read(file, opts) for file in files] or [_read("", opts)]:
        described = {name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if cfg.DATASETS.REGISTER}
        sets += {*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST} - described
    for key in ("data_set", "data_sets"):
        given = getattr(options, key, None) or []
        sets += [given] if isinstance(given, str) else given
    unknown = {name for name in sets if not name.endswith(".yaml")} - {*DatasetCatalog.list(), *READERS_SETS}
    assert not unknown, f"no data set is registered as {sorted(unknown)}"


def _read(file: str, opts: Sequence[str]):
    path = None if not file or file in READERS_FILES else find_config_file(file)
    return read_config(path, opts, resolve=get_config_file)


def check_make(words: Sequence[str]) -> None:
    """Target and variables are the Makefile's; ARGS of `make demo` are options of `denserc demo`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.M)[1].split()
    variables = set(re.findall(r"^(\w+) \?=", makefile, re.M))
    given = dict(word.split("=", 1) for word in words if "=" in word)
    wanted = [word for word in words if "=" not in word]
    assert set(wanted) <= set(targets), f"make has the targets {targets}; got {wanted}"
    assert given.keys() <= variables, f"the Makefile has the variables {sorted(variables)}; got {sorted(given)}"
    if "demo" in wanted:
        check(["denserc", "demo", *shlex.split(given.get("ARGS", ""))])


def check(words: Sequence[str]) -> None:
    """Fail unless a command line is legal, or of a program that cannot be checked."""
    if words[0] in NOT_CHECKED or words[:3] == ["python", "-m", "lmms_eval"]:  # not among the test's packages
        return
    if words[0] == "make":
        check_make(words[1:])
        return
    options = options_of(words)
    if options is not None:
        check_configs(options)


def refusal(command: Command, capsys) -> str:
    """Message of the error of a command line; "" if it is legal."""
    try:
        check(words_of(command))
    except (AssertionError, AttributeError, ConfigurationError, OSError, ImportError, ValueError) as error:
        return f"{command.place}: {command.text}\n{error}"
    except SystemExit:
        return f"{command.place}: {command.text}\n{capsys.readouterr().err}"
    return ""


@pytest.mark.parametrize("command", PAGE_COMMANDS, ids=[one.place for one in PAGE_COMMANDS])
def test_command_of_a_document_is_legal(command, capsys):
    assert not (message := refusal(command, capsys)), message


@pytest.mark.parametrize("command", HELP_COMMANDS, ids=[one.place for one in HELP_COMMANDS])
def test_example_of_a_help_is_legal(command, capsys):
    assert not (message := refusal(command, capsys)), message


def test_commands_are_found_at_all():
    """Against an extraction that finds nothing: every kind of command and most pages occur."""
    programs = {words_of(command)[0] for command in PAGE_COMMANDS}
    assert {"denserc", "python", "torchrun", "make"} <= programs
    assert len(PAGE_COMMANDS) > 80 and len(HELP_COMMANDS) > 40
    assert {command.place.split(" --help")[0] for command in HELP_COMMANDS} >= {
        f"denserc {name}" for name in cli.COMMANDS
    }


def test_the_page_of_commands_has_each_once_with_an_example():
    page = (ROOT / "docs" / "COMMANDS.md").read_text(encoding="utf-8")
    sections = {title.lower(): text for title, text in re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", page, re.M)}
    assert list(sections) == list(cli.GROUPS)
    for group, commands in cli.GROUPS.items():
        names = [command.name for command in commands]
        assert re.findall(r"^\| `([^`]+)` \|", sections[group], re.M) == names
        examples = [words_of(one)[1:] for one in commands_in(group, sections[group])]
        assert [command.name for command, _ in map(cli.find_command, examples)] == names


@pytest.mark.parametrize(
    "text, message",
    [
        ("denserc distil", "did you mean distill?"),
        ("denserc detect a.jpg --model m.pth --names cat --output o --lowest 1", "--lowest"),
        ("denserc convert clip a.pt b.safetensors --encoder X --construction clipslf", "did you mean clipself?"),
        ("denserc train --config-file ovcoco_vitb17", "no packaged config 'ovcoco_vitb17'"),
        ("denserc train --config-file ovcoco_vitb16 SOLVER.MAX_ITERS 3", "there is no key SOLVER.MAX_ITERS"),
        ("denserc train --config-file ovcoco_vitb16 SOLVER.MAX_ITER many", "expected a whole number"),
        ("denserc train --config-file ovcoco_vitb16 MODEL.DEVICE", "settings come in pairs"),
        ("denserc train --config-file ovcoco_vitb16 SEED 1 --num-gpus 2", "there is no key --num-gpus"),
        (
            "denserc eval --config-file ovcoco_vitb16 DATASETS.TEST \"('ov_coco_val',)\"",
            "registered as ['ov_coco_val']",
        ),
        ("denserc eval --data-set ov_coco_val --predictions x", "registered as ['ov_coco_val']"),
        ("denserc lab ablate --table 13 --downstream detection --detection-config x", "no packaged config 'x'"),
        ("python projects/FViT/train_nets.py", "train_nets.py"),
        ("python projects/FViT/train_net.py --config-file configs/absent.yaml", "configs/absent.yaml"),
        ("python -m benchmarks.detector --repeat-all 3", "unrecognized arguments: --repeat-all"),
        ("python -m benchmarks.absent", "benchmarks.absent"),
        ("python datasets/prepare_voc.py --roots datasets x", "unrecognized arguments"),
        ("torchrun --processes=4 -m denserc train --config-file ovcoco_vitb16", "usage"),
        ("torchrun --nproc_per_node=4 -m denserc trai --config-file ovcoco_vitb16", "did you mean train?"),
        ("make tests", "make has the targets"),
        ("make demo ARG=1", "the Makefile has the variables"),
        ("make demo ARGS='--seed-list 0'", "unrecognized arguments: --seed-list"),
        ("python $TRAIN --resume", "sets no variable ['TRAIN']"),
        ("conda install denserc", "add it to NOT_CHECKED"),
    ],
)
def test_a_wrong_command_is_refused(text, message, capsys):
    assert message in refusal(Command("here", text), capsys)


@pytest.mark.parametrize("command", INLINE_COMMANDS, ids=[f"{one.place}: {one.text}" for one in INLINE_COMMANDS])
def test_command_in_running_text_exists(command, capsys):
    """Complete lines as above; of `denserc COMMAND --option`, which may leave out the rest, command and options."""
    program, *rest = words_of(command)
    if program != "denserc":
        assert not (message := refusal(command, capsys)), message
        return
    if rest[0] in ("--help", "--version", "COMMAND", *cli.FAMILIES) and len(rest) == 1 or rest[0] == "COMMAND":
        return
    found, others = cli.find_command(rest)
    assert found is not None, f"{command.place}: `{command.text}`: {cli.unknown_command(rest)}"
    known = importlib.import_module(found.module).parser()._option_string_actions
    unknown = [word for word in others if word.startswith("--") and word.split("=")[0] not in known]
    assert not unknown, f"{command.place}: `{command.text}`: there is no option {unknown}"


@pytest.mark.parametrize("command", PAIRS, ids=[f"{one.place}: {one.text}" for one in PAIRS])
def test_key_and_value_in_running_text_are_legal(command):
    read_config(None, shlex.split(command.text))


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.place)
def test_python_block_compiles_and_its_names_exist(block):
    source = "\n".join(block.lines)
    compile(source, block.place, "exec")
    for name in names_used(source):
        if name.startswith(NEED_EXTRA):
            pytest.importorskip("transformers", reason="needs denserc[llava]")
        resolve(name)


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_names_files_and_links_of_a_page_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in names_in_prose(text):
        if not name.startswith(NEED_EXTRA) or importlib.util.find_spec("transformers"):
            resolve(name)
    files = set(
        re.findall(r"`((?:denserc|tests|benchmarks|projects/[A-Z]\w+|datasets|scripts)/[\w/.]+\.py)`", prose(text))
    )
    assert not (absent := sorted(file for file in files if not (ROOT / file).is_file())), absent
    links = set(re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", prose(text)))
    assert not (broken := sorted(link for link in links if not (page.parent / link).exists())), broken


@pytest.mark.parametrize("name", ["denserc.absent", "denserc.config.reed_config", "denserc.detection.absent.Thing"])
def test_an_absent_name_is_noticed(name):
    with pytest.raises((AttributeError, ModuleNotFoundError)):
        resolve(name)


def test_a_name_in_code_is_found():
    source = "from denserc.data import register_from_yaml as r\nimport denserc.config\ndenserc.load('x')\n"
    assert set(names_used(source)) == {"denserc.data.register_from_yaml", "denserc.config", "denserc.load"}
