"""The command `denserc`: the list of sub-commands and their dispatch."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from . import __version__
from .commands.parsing import did_you_mean, show
from .threads import let_threads_sleep


@dataclass(frozen=True)
class Command:
    """One sub-command.

    Args:
        name: One word, or two for a member of a family, e.g. "convert clip".
        summary: One line for `denserc --help`.
        module: Module with `parser()`, an ArgumentParser, and `main(arguments)`, which returns an exit status or None.
    """

    name: str
    summary: str
    module: str


GROUPS = {
    "use": (
        Command("demo", "run everything on the miniature world, from CLIP to detections", "denserc.commands.demo"),
        Command("detect", "detect objects in photos", "denserc.commands.detect"),
        Command("segment", "label the pixels of photos by words, by several models", "denserc.commands.segment"),
        Command("show", "draw detections of several detectors beside the ground truth", "denserc.commands.show"),
        Command("check-env", "report versions, devices and what is missing", "denserc.commands.check_env"),
    ),
    "data": (
        Command("dataset new", "describe and split a data set of your own", "denserc.commands.dataset_new"),
        Command("dataset miniature", "write the miniature data sets", "denserc.commands.dataset_miniature"),
        Command("doctor", "find faults in a data set", "denserc.commands.doctor"),
        Command("embed", "write text embeddings of class names", "denserc.commands.embed"),
    ),
    "models": (
        Command("configs", "list the packaged configs, or print one", "denserc.commands.configs"),
        Command("distill", "distill a dense encoder from a CLIP, or evaluate one", "denserc.commands.distill"),
        Command("train", "train a detector or CAT-Seg over a dense encoder", "denserc.commands.train"),
        Command("eval", "evaluate a detector, or score saved predictions", "denserc.commands.eval"),
        Command("answer", "answer questions about pictures by a LLaVA, into a file", "denserc.commands.answer"),
        Command("eval llava", "score answers to POPE, GQA, TextVQA and MME", "denserc.commands.eval_llava"),
        Command("describe", "describe an encoder checkpoint: parts, parameters, cost", "denserc.commands.describe"),
        Command("convert clip", "convert a published encoder, or any CLIP", "denserc.commands.convert_clip"),
        Command("convert fvit", "convert a published F-ViT detector", "denserc.commands.convert_fvit"),
        Command("convert catseg", "convert a published CAT-Seg model", "denserc.commands.convert_catseg"),
        Command("export", "export a detector for torch.export's runtimes", "denserc.commands.export"),
        Command("export portable", "write a model to one file in half precision", "denserc.commands.export_portable"),
        Command("export vision-tower", "export an encoder as a vision tower of LLaVA", "denserc.commands.export_tower"),
        Command("export llava", "join a language model and an encoder to a LLaVA", "denserc.commands.export_llava"),
    ),
    "research": (
        Command("bench", "run the benchmarks of a checkout", "denserc.commands.bench"),
        Command("lab ablate", "measure the paper's ablations", "denserc.commands.ablate"),
        Command("lab interference", "measure interference between patches", "denserc.commands.interference"),
        Command("lab train-clip", "train the miniature CLIP", "denserc.commands.train_clip"),
        Command("lab package-miniature", "make the packaged model anew", "denserc.commands.package_miniature"),
    ),
}
COMMANDS = {command.name: command for group in GROUPS.values() for command in group}
FAMILIES = sorted({name.split()[0] for name in COMMANDS if " " in name})


def help_text(family: str = "") -> str:
    """Format the list of sub-commands, grouped.

    Args:
        family: Family whose members are listed; "" for all.
    """
    width = max(map(len, COMMANDS))
    lines = [f"usage: denserc {family or '[--version]'} COMMAND ...".replace("  ", " "), ""]
    if not family:
        lines += ["Open-vocabulary dense perception: distill, train, evaluate and use the models.", ""]
    for group, commands in GROUPS.items():
        shown = [command for command in commands if not family or command.name.split()[0] == family]
        if shown:
            lines += [f"{group}:", *(f"  {c.name:<{width}}  {c.summary}" for c in shown), ""]
    lines.append("`denserc COMMAND --help` shows the options of a command and an example.")
    return "\n".join(lines)


def find_command(arguments: Sequence[str]) -> tuple[Command | None, list[str]]:
    """Find the command that the first words name. Returns it, or None, and the other words."""
    for words in (2, 1):
        command = COMMANDS.get(" ".join(arguments[:words]))
        if command is not None:
            return command, list(arguments[words:])
    return None, list(arguments)


def unknown_command(arguments: Sequence[str]) -> str:
    """The error message for words that name no command."""
    first, given = arguments[0], " ".join(arguments[:2])
    if first.startswith("-"):
        return f"unrecognized arguments: {first}{did_you_mean(first, ['--help', '--version'])}"
    if first in FAMILIES:
        members = [name for name in COMMANDS if name.split()[0] == first]
        return f"{given!r} is not a command{did_you_mean(given, members) or '; legal are ' + ', '.join(members)}"
    words = {name: name for name in [*FAMILIES, *COMMANDS]}
    members = {name.split()[1]: name for name in COMMANDS if " " in name}  # also found by their own word
    return f"{first!r} is not a command{did_you_mean(first.replace('_', ' '), members | words)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        arguments: Words after `denserc`; None for those of this process.

    Returns:
        The exit status: 0, the command's own, or 2 for an error of the user.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        show(help_text())
        return 0
    if given[0] == "--version":
        print(f"denserc {__version__}")
        return 0
    command, rest = find_command(given)
    if command is None:
        if given[0] in FAMILIES and (len(given) == 1 or given[1] in ("-h", "--help")):
            show(help_text(given[0]))
            return 0
        print(f"error: {unknown_command(given)}\n`denserc --help` lists the commands.", file=sys.stderr)
        return 2
    # Detectron2's and fvcore's use of it, on every import of them.
    warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated", category=FutureWarning)
    sys.warnoptions.append("ignore:`torch.jit.script` is deprecated:FutureWarning")  # in processes that it starts
    let_threads_sleep()
    module = importlib.import_module(command.module)
    try:
        return module.main(rest) or 0
    except Exception as error:
        from .structures import DenseRCError  # here, because it imports torch

        if not isinstance(error, DenseRCError):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return getattr(stop, "status", 130)  # TrainingStopped has one
