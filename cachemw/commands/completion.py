"""Print a script that has a shell complete commands and options.

Imports: commands._shells.
"""

from __future__ import annotations

import argparse

from . import _shells


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    parser.add_argument("shell", choices=list(_shells.SCRIPTS), help="the shell to make it for")


def run(args: argparse.Namespace) -> int:
    """Print the script, made from the description of the command line."""
    commands = _shells.commands_of(args.parser)
    print(_shells.SCRIPTS[args.shell](commands))
    return 0
