"""The command line: ``cachemw COMMAND``.

One module a command, each with ``add_arguments(parser)`` and ``run(args)``,
which gives the exit status: 0 done, 1 something could not be done, 2 usage or
configuration. Data goes to stdout, complaints to stderr.

Imports: commands._output, commands.check, commands.clean, commands.completion, commands.delete,
commands.listing, commands.prefetch, commands.prune, commands.queue, commands.serve, commands.show,
commands.stats, commands.top, errors.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from ..errors import CacheMwError, ConfigError
from . import (
    _output,
    check,
    clean,
    completion,
    delete,
    listing,
    prefetch,
    prune,
    queue,
    serve,
    show,
    stats,
    top,
)

_COMMANDS = {
    "serve": serve,
    "list": listing,
    "show": show,
    "stats": stats,
    "top": top,
    "queue": queue,
    "prefetch": prefetch,
    "delete": delete,
    "prune": prune,
    "clean": clean,
    "check": check,
    "completion": completion,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; ``None``: the process's own.
    :return: the exit status.
    """
    _output.begin_logging()
    parser = make_parser()
    args = parser.parse_args(arguments)
    args.parser = parser
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except ConfigError as exc:
        _output.complain(args.command, exc)
        return 2
    except CacheMwError as exc:
        _output.complain(args.command, exc)
        return 1
    except BrokenPipeError:
        _leave_closed_pipe()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _leave_closed_pipe() -> None:
    """Let nothing complain, at exit, that whoever read the output wants no more of it."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def make_parser() -> argparse.ArgumentParser:
    """Describe the whole command line."""
    parser = argparse.ArgumentParser(
        prog="cachemw", description="Transparent, verified image caching for WSGI services."
    )
    version = importlib.metadata.version("cachemw")
    parser.add_argument("--version", action="version", version=f"cachemw {version}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in _COMMANDS.items():
        summary = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(name, help=summary, description=summary)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
