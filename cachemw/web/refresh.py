"""Ask the app behind the client's back: about what was served stale, or for what is missing.

RFC 5861, section 3.

Imports: drivers.base, web.validation.
"""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from ..drivers.base import Record
from . import validation

log = logging.getLogger(__name__)

Environ = dict[str, Any]

#: Images that one process asks about at a time.
MOST = 4


class Refresher:
    """Background threads, at most one for an image. Threads may share it.

    :param ask: asks the app with a request of its own, and reads what it answers.
    """

    def __init__(self, ask: Callable[[Environ, Record], None]) -> None:
        self._ask = ask
        self._asking: set[str] = set()
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def start(self, environ: Environ, record: Record) -> None:
        """Ask about what is stored, unless that is done already, or enough is.

        :param environ: the client's request, which is copied.
        """
        image_id = record.image_id
        with self._lock:
            if self._pid != os.getpid():
                # The parent's threads are not in its child.
                self._pid = os.getpid()
                self._asking.clear()
            if image_id in self._asking or len(self._asking) >= MOST:
                return
            self._asking.add(image_id)
        thread = threading.Thread(
            target=self._run, args=(_detached(environ), record), name="cachemw-refresh", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:  # no more threads
            log.warning("%s is not asked about: %s", image_id, exc)
            self._ended(image_id)

    def _run(self, environ: Environ, record: Record) -> None:
        try:
            self._ask(environ, record)
        except Exception as exc:
            log.warning("%s: asking the app in the background failed: %s", record.image_id, exc)
        finally:
            self._ended(record.image_id)

    def _ended(self, image_id: str) -> None:
        with self._lock:
            self._asking.discard(image_id)


def _detached(environ: Environ) -> Environ:
    """Copy a request for when the client and the server are done with theirs.

    What is in front of the filter may have left there whatever the app needs (the caller's
    rights, say); what it goes on to leave there for this client is not in the copy.
    """
    kept: Environ = {
        key: dict(value) if type(value) is dict else value for key, value in environ.items()
    }
    for key in ("wsgi.file_wrapper", *validation.CLIENT_CONDITIONS):
        kept.pop(key, None)
    kept["REQUEST_METHOD"] = "GET"
    kept["wsgi.input"] = io.BytesIO()
    return kept
