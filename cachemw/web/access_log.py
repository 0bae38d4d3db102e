"""The replayable access log: one line for each request for an image.

``docs/reference/access-log.rst`` is the authority for its lines. Processes may
share a file: a line goes out in one write, at its end.

Imports: concurrency.
"""

from __future__ import annotations

import os
import re
import time

from .. import concurrency

log = concurrency.get_logger(__name__)

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC

#: Seconds after which it is looked whether the file was moved away, as log rotation does.
_LOOK_AGAIN = 1.0

#: What would end a field or a line, and the sign that it is written with.
_SPECIAL = re.compile(r"[%\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class AccessLog:
    """A file that grows. Threads may share it.

    :param path: its name; it is made with mode 0640 if it is missing.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = concurrency.Lock()
        self._fd = -1
        self._pid = 0
        self._looked = 0.0
        self._is_broken = False

    def write(
        self,
        when: float,
        outcome: str,
        status: str,
        size: int | None,
        sent: int,
        image_id: str,
    ) -> None:
        """Add a line. Never raises: trouble is logged once, until it works again.

        :param when: seconds since the epoch.
        :param outcome: as in the metrics.
        :param status: three digits.
        :param size: bytes of the image, if they are known.
        :param sent: bytes of the answer's body.
        """
        text = line(when, outcome, status, size, sent, image_id)
        try:
            with self._lock:
                os.write(self._file(), text)
            self._is_broken = False
        except OSError as exc:
            if not self._is_broken:
                log.warning("the access log %s cannot be written: %s", self._path, exc)
            self._is_broken = True

    def _file(self) -> int:
        now = time.monotonic()
        is_old = self._pid != os.getpid() or now - self._looked > _LOOK_AGAIN
        if self._fd != -1 and is_old and not self._is_there():
            self.close()
        if self._fd == -1:
            self._fd = os.open(self._path, _FLAGS, 0o640)
            self._pid = os.getpid()
        self._looked = now
        return self._fd

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; the next line opens it again."""
        fd, self._fd = self._fd, -1
        if fd != -1:
            os.close(fd)


def line(
    when: float, outcome: str, status: str, size: int | None, sent: int, image_id: str
) -> bytes:
    """Give the bytes of one line."""
    whole = "-" if size is None else size
    return f"{when:.3f} {outcome} {status} {whole} {sent} {quoted(image_id)}\n".encode()


def quoted(image_id: str) -> str:
    """Give an id without what would end a field or a line, which stands as ``%`` and the hex
    digits of its UTF-8 bytes; so does ``%`` itself."""

    def escape(match: re.Match[str]) -> str:
        data = match[0].encode("utf-8", "surrogatepass")
        return "".join(f"%{byte:02X}" for byte in data)

    return _SPECIAL.sub(escape, image_id)
