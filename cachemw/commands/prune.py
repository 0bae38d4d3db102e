"""Delete the least recently read images until the cache fits.

Imports: commands._output, commands._progress, commands._settings, commands._victims, core.config,
drivers.base, errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..core.config import parse_size
from ..drivers.base import Victim
from ..errors import ConfigError
from . import _output, _progress, _settings, _victims


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument(
        "--max-size", metavar="SIZE", help="what the cache is to fit into (max_size)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Print one line a file that was deleted: failed and abandoned fills first, then images."""
    max_size = _max_size(args.max_size)
    with _settings.opened_cache(args) as cache, _progress.progress("pruning") as progress:
        if args.dry_run:
            gone = cache.plan_prune(max_size)
        else:
            gone = []

            def report(victims: Sequence[Victim], done: int, total: int) -> None:
                gone.extend(victims)
                progress(done, total)

            cache.prune(max_size, report)
    _victims.print_victims(gone, args.json)
    return 0


def _max_size(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return parse_size(text)
    except ValueError as exc:
        raise ConfigError(f"--max-size {text!r}: {exc}") from None
