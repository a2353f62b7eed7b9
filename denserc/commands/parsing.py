"""Command-line parser whose errors name the nearest option or choice."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import NoReturn


def did_you_mean(given: str, known: Mapping[str, str] | Iterable[str]) -> str:
    """The words "; did you mean X?" for the nearest known word, or "" where none is near.

    Args:
        given: Word of the user; a known word that it begins with counts as nearest.
        known: Legal words; of a mapping, its keys are compared and its values proposed.
    """
    proposals = known if isinstance(known, Mapping) else {word: word for word in known}
    beginnings = [word for word in proposals if given.startswith(word) and len(word) > 2]
    near = [max(beginnings, key=len)] if beginnings else get_close_matches(given, proposals, n=1, cutoff=0.5)
    return f"; did you mean {proposals[near[0]]}?" if near else ""


def listed(text: str) -> list[str]:
    """Names from a list with commas: "red cup, ball" -> ["red cup", "ball"]."""
    return [name.strip() for name in text.split(",") if name.strip()]


def show(text: str) -> None:
    """Print a text; a closed pipe, as in `| head`, is not an error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor when the interpreter ends


class CommandParser(argparse.ArgumentParser):
    """argparse's parser with the look and the errors of `denserc`.

    Args:
        command: Name of the sub-command, e.g. "convert clip".
        description: Purpose of the command.
        examples: Lines of an example, shown below the options.
    """

    def __init__(self, command: str, description: str, examples: str):
        epilog = "example:\n" + "\n".join(f"  {line}" for line in examples.strip().splitlines())
        super().__init__(
            prog=f"denserc {command}".rstrip(),
            description=description,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and a message that names the nearest option or choice."""
        unknown = re.match(r"unrecognized arguments: (-[^\s=]+)", message)
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if unknown:
            message += did_you_mean(unknown[1], re.findall(r"(?<![\w-])--?[a-z][\w-]*", self.format_usage()))
        elif choice:
            message += did_you_mean(choice[1], re.findall(r"[^\s',]+", choice[2]))
        self.exit(2, f"error: {message}\n`{self.prog} --help` shows the options.\n")
