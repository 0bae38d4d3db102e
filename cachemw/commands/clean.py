"""Remove failed fills and abandoned ones.

Imports: commands._settings, core.cache, core.config, errors.
"""

from __future__ import annotations

import argparse

from ..core.cache import ImageCache
from ..core.config import parse_duration
from ..errors import ConfigError
from . import _settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument(
        "--stall-time",
        metavar="TIME",
        help="remove fills that nobody has written to for this long (such as 0, 30m, 1d)",
    )


def run(args: argparse.Namespace) -> int:
    """Empty ``invalid/`` and remove abandoned fills; print how many files went."""
    settings = _settings.from_arguments(args)
    cache = ImageCache.from_settings(settings)
    try:
        print(cache.clean(_stall_time(args.stall_time)))
    finally:
        cache.close()
    return 0


def _stall_time(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as exc:
        raise ConfigError(f"--stall-time {text!r}: {exc}") from None
