"""What the management API shows: health, numbers, the dashboard.

Imports: concurrency, core.cache, core.statistics, errors, metrics.exposition, web.dashboard,
web.manage.answers, web.manage.asked.
"""

from __future__ import annotations

import errno
import os
import time

from ... import concurrency
from ...core import statistics
from ...core.cache import ImageCache
from ...errors import DriverError
from ...metrics.exposition import CONTENT_TYPE
from ..dashboard import CONTENT_SECURITY_POLICY, FILES
from .answers import Answer, Problem, as_json
from .asked import Asked

#: Those of Glance's API under which its client looks for the cache.
_VERSIONS = ("v2.14", "v2.18")

#: Hours for which there is a history, at the most.
_LONGEST = 24 * 366

#: Where a file without a name cannot be made: the file system or the kernel has none.
_NO_NAMELESS = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})

#: Seconds for which an answer about health holds: whoever asks may be anybody.
_FRESH = 1.0


class Health:
    """Whether a cache works. Threads may share it."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._known: tuple[float, str] | None = None

    def problem(self) -> str:
        """Say what is wrong; empty: nothing. Nothing in it is secret."""
        now = time.monotonic()
        known = self._known
        if known is None or now - known[0] >= _FRESH:
            known = self._known = now, concurrency.run_blocking(self._look)
        return known[1]

    def _look(self) -> str:
        try:
            _write_in(self._cache.driver.directory)
        except OSError as exc:
            return f"the cache directory cannot be written: {exc.strerror}"
        try:
            self._cache.driver.get_usage()
        except (DriverError, OSError):
            return "the driver does not answer"
        return ""


def _write_in(directory: str) -> None:
    """Write something that nobody sees.

    :raises OSError: it cannot be written.
    """
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        if exc.errno not in _NO_NAMELESS:
            raise
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        return
    try:
        os.write(fd, b"\0")
    finally:
        os.close(fd)


def health(known: Health) -> Answer:
    """``GET /healthz``."""
    problem = known.problem()
    if problem:
        return as_json({"status": "failing", "reason": problem}, 503)
    return as_json({"status": "ok"})


def stats(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /stats``."""
    return as_json(concurrency.run_blocking(statistics.snapshot, cache))


def history(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /stats/history``."""
    text = asked.query("hours").get("hours", "24")
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours <= _LONGEST:
        raise Problem(400, f"the parameter 'hours' has the value {text!r}: expected up to 24")
    return as_json(concurrency.run_blocking(statistics.past, cache, hours))


def metrics(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /metrics``."""
    text = concurrency.run_blocking(statistics.exposition, cache)
    return Answer(200, text.encode("utf-8"), {"Content-Type": CONTENT_TYPE})


def versions(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /versions``, where Glance's client looks first."""
    known = [{"id": name, "status": "SUPPORTED", "links": []} for name in _VERSIONS]
    return as_json({"versions": known})


def page(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /``: the dashboard."""
    return _file("index.html")


def file(cache: ImageCache, asked: Asked) -> Answer:
    """``GET /{name}``: what the dashboard loads."""
    return _file(asked.argument)


def _file(name: str) -> Answer:
    if name not in FILES:
        raise Problem(404, "there is nothing here")
    media_type, load = FILES[name]
    headers = {"Content-Type": media_type, "Content-Security-Policy": CONTENT_SECURITY_POLICY}
    # A new version of the package has other files under the same names.
    return Answer(200, load(), {**headers, "Cache-Control": "no-cache"})
