"""How far a long command is, on standard error if that is a terminal.

``rich`` draws a bar with rate and time left; without it a line is printed now
and then. A command calls ``progress(done, total)`` as often as it likes.

Imports: commands._output, commands._shown.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import _output, _shown

#: Told how much is done, and of how much (``None``: nobody knows).
Progress = Callable[[int, int | None], None]

#: Seconds between two lines where there is no bar.
_PAUSE = 5.0


@contextlib.contextmanager
def progress(title: str, unit: str = "bytes") -> Iterator[Progress]:
    """Show how far it is for as long as the block runs.

    :param title: what is being done, such as ``"pruning"``.
    :param unit: what is counted; ``"bytes"`` are shown in their units.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    bars = _output.rich("rich.progress")
    if bars is None:
        yield _Lines(title, unit)
        return
    with _bar(bars, unit) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _bar(bars: Any, unit: str) -> Any:
    counts = (
        [bars.DownloadColumn(binary_units=True), bars.TransferSpeedColumn()]
        if unit == "bytes"
        else [bars.MofNCompleteColumn(), bars.TextColumn(unit)]
    )
    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        *counts,
        bars.TimeRemainingColumn(),
        console=_output.rich("rich.console").Console(file=sys.stderr),
        transient=True,
    )


class _Lines:
    """Prints a line now and then."""

    def __init__(self, title: str, unit: str) -> None:
        self._title = title
        self._unit = unit
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last >= _PAUSE:
            self._last = now
            print(line(self._title, done, total, now - self._began, self._unit), file=sys.stderr)


def line(title: str, done: int, total: int | None, elapsed: float, unit: str) -> str:
    """Say how far it is: ``pruning: 1.0 GiB of 4.0 GiB (25 %), 10.0 MiB/s, 5 min 07 s left``.

    :param elapsed: seconds since it began.
    """
    count = _shown.size if unit == "bytes" else _shown.number
    after = "" if unit == "bytes" else f" {unit}"
    rate = done / elapsed if elapsed > 0 else 0.0
    speed = f"{_shown.size(rate)}/s" if unit == "bytes" else f"{_shown.per_second(rate)} a second"
    if total is None:
        return f"{title}: {count(done)}{after}, {speed}"
    share = done / total if total else 1.0
    left = f", {_shown.duration((total - done) / rate)} left" if rate else ""
    return (
        f"{title}: {count(done)} of {count(total)}{after} ({_shown.percent(share)}), {speed}{left}"
    )
