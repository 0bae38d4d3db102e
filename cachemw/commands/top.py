"""Watch what the cache does, live.

``commands._screen`` lays the screen out; here is the terminal.

Imports: commands._output, commands._screen, commands._settings, core.cache, core.config,
core.statistics, errors.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from typing import Any, NoReturn

from ..core import statistics
from ..core.cache import ImageCache
from ..core.config import parse_duration
from ..errors import ConfigError
from . import _output, _screen, _settings

#: Seconds between two looks.
_INTERVAL = "2"

#: Fewest of them: a look costs as much as some hits.
_SHORTEST = 0.2

#: Seconds after which the screen's size is looked at again.
_MOMENT = 0.25

# ECMA-48 and xterm's control sequences.
_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME = "\x1b[H"
_END_OF_LINE = "\x1b[K"
_END_OF_SCREEN = "\x1b[J"
_BOLD = "\x1b[1m"
_PLAIN = "\x1b[0m"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command's arguments."""
    _settings.add_arguments(parser)
    parser.add_argument("--once", action="store_true", help="print it once and end")
    parser.add_argument(
        "--interval",
        metavar="TIME",
        default=_INTERVAL,
        help=f"time between two looks ({_INTERVAL}s)",
    )
    _output.add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    """Show a screen until ``q`` or Ctrl-C; without a terminal, one after another."""
    interval = _interval(args.interval)
    with _settings.opened_cache(args) as cache:
        if args.once:
            _print(statistics.snapshot(cache), args.json)
        elif args.json or not (sys.stdout.isatty() and sys.stdin.isatty()):
            _repeat(cache, interval, args.json)
        else:
            _watch(cache, interval)
    return 0


def _interval(text: str) -> float:
    try:
        return max(parse_duration(text), _SHORTEST)
    except ValueError as exc:
        raise ConfigError(f"--interval {text!r}: {exc}") from None


def _print(snapshot: dict[str, Any], as_json: bool, indent: int | None = 2) -> None:
    if as_json:
        _output.print_json(snapshot, indent)
        return
    for line in _screen.layout(snapshot, shutil.get_terminal_size().columns):
        print(_output.printable(line))


def _repeat(cache: ImageCache, interval: float, as_json: bool) -> None:
    """Print one after another, each JSON document in a line, until Ctrl-C or a closed pipe."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            _print(statistics.snapshot(cache), as_json, indent=None)
            if not as_json:
                print()
            sys.stdout.flush()
            time.sleep(interval)


def _watch(cache: ImageCache, interval: float) -> None:
    with _raw_terminal(), contextlib.suppress(KeyboardInterrupt):
        snapshot = statistics.snapshot(cache)
        looked = time.monotonic()
        size = None
        while True:
            if time.monotonic() - looked >= interval:
                looked = time.monotonic()
                snapshot = statistics.snapshot(cache)
                size = None
            # Not shutil's, which goes by the environment's COLUMNS where it is set.
            if size != os.get_terminal_size(sys.stdout.fileno()):
                size = os.get_terminal_size(sys.stdout.fileno())
                _draw(_screen.layout(snapshot, size.columns, size.lines))
            if _is_quit_pressed(min(_MOMENT, interval)):
                return


def _draw(lines: list[str]) -> None:
    """Put lines over those that are on the screen, in one write, so that it does not flicker."""
    styled = [
        f"{_BOLD}{line}{_PLAIN}" if line[:1].strip() else line
        for line in map(_output.printable, lines)
    ]
    text = f"{_END_OF_LINE}\n".join(styled)
    sys.stdout.write(f"{_HOME}{text}{_END_OF_LINE}{_END_OF_SCREEN}")
    sys.stdout.flush()


def _is_quit_pressed(seconds: float) -> bool:
    """Wait for a key, no longer than this."""
    keyboard = sys.stdin.fileno()
    if not select.select([keyboard], [], [], seconds)[0]:
        return False
    keys = os.read(keyboard, 64)
    # Without any, nobody is there any more.
    return not keys or keys[:1] in b"qQ\x03\x04"


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Have keys come one by one and unseen, and a screen of our own; as it was afterwards."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    handler = signal.signal(signal.SIGTERM, _leave)
    try:
        tty.setcbreak(keyboard)
        sys.stdout.write(_ENTER)
        yield
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
        with contextlib.suppress(termios.error):
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTERM, handler)


def _leave(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)
