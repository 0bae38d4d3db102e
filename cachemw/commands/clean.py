"""Remove failed fills and abandoned ones.

Imports: commands._output, commands._progress, commands._settings, commands._victims, core.config,
drivers.base, errors.
"""

from __future__ import annotations

import argparse

from ..core.config import parse_duration
from ..drivers.base import Victim
from ..errors import ConfigError
from . import _output, _progress, _settings, _victims


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument(
        "--stall-time",
        metavar="TIME",
        help="remove fills that nobody has written to for this long (such as 0, 30m, 1d)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="only list the files that would be removed"
    )
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Empty ``invalid/`` and remove abandoned fills; print how many files went."""
    stall_time = _stall_time(args.stall_time)
    gone: list[Victim] = []
    with _settings.opened_cache(args) as cache:
        plan = cache.plan_cleaning(stall_time)
        if not args.dry_run:
            with _progress.progress("cleaning", "files") as progress:

                def note(victim: Victim) -> None:
                    gone.append(victim)
                    progress(len(gone), max(len(plan), len(gone)))

                count = cache.clean(stall_time, note)
    if args.dry_run or args.json:
        _victims.print_victims(plan if args.dry_run else gone, args.json)
    else:
        print(count)
    return 0


def _stall_time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ConfigError(f"--stall-time {text!r}: {exc}") from None
