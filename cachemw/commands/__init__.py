"""The command line: ``cachemw COMMAND``.

One module a command, each with ``add_arguments(parser)`` and ``run(args)``,
which gives the exit status: 0 done, 1 something could not be done, 2 usage or
configuration. Data goes to stdout, complaints to stderr.

Imports: commands.check, commands.clean, commands.prefetch, commands.queue, commands.serve, errors.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import sys
from collections.abc import Sequence

from ..errors import CacheMwError, ConfigError
from . import check, clean, prefetch, queue, serve

_COMMANDS = {
    "serve": serve,
    "queue": queue,
    "prefetch": prefetch,
    "clean": clean,
    "check": check,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    :param arguments: without the program's name; ``None``: the process's own.
    :return: the exit status.
    """
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    args = make_parser().parse_args(arguments)
    try:
        status: int = args.run(args)
    except ConfigError as exc:
        return _complain(args.command, exc, 2)
    except CacheMwError as exc:
        return _complain(args.command, exc, 1)
    except KeyboardInterrupt:
        return 130
    return status


def _complain(command: str, exc: Exception, status: int) -> int:
    print(f"cachemw {command}: {exc}", file=sys.stderr)
    return status


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
