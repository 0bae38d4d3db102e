"""Verify the images and all else in a cache directory; mend it with --repair.

Imports: commands._settings, core.cache, core.check.
"""

from __future__ import annotations

import argparse
import json
import sys

from ..core.cache import ImageCache
from ..core.check import Finding, Progress, Report, as_dict
from . import _settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument("--repair", action="store_true", help="mend what is wrong")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def run(args: argparse.Namespace, progress: Progress | None = None) -> int:
    """Print a line for each finding, as it is made.

    :param progress: called now and then with bytes verified and bytes in all.
    :return: 0: nothing is wrong (any more); 1: something is.
    """
    cache = ImageCache.to_look_at(_settings.from_arguments(args))
    try:
        found = None if args.json else _print
        report = cache.check(args.repair, progress, found)
    finally:
        cache.close()
    if args.json:
        print(json.dumps(as_dict(report)))
    print(f"cachemw check: {_summary(report)}", file=sys.stderr)
    return 0 if report.is_mended else 1


def _print(finding: Finding) -> None:
    fields = (_state(finding), finding.kind, finding.name, finding.image_id or "")
    print("\t".join(map(_shown, (*fields, finding.problem, finding.mend))), flush=True)


def _state(finding: Finding) -> str:
    if not finding.is_damage:
        return "note"
    return "mended" if finding.is_mended else "wrong"


def _shown(text: str) -> str:
    """Give a text that is one line and can be printed, whatever is in a file's name or an id."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )


def _summary(report: Report) -> str:
    wrong = len(report.damage)
    mended = sum(finding.is_mended for finding in report.damage)
    return f"{report.images} verified ({report.bytes} bytes), {wrong} wrong, {mended} of it mended"
