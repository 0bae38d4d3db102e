"""What the system refuses, told as a driver's error.

Imports: errors.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import DriverError


def translated(subject: str, exc: OSError) -> DriverError:
    """Give the driver's error about ``subject`` for a system's error."""
    return DriverError(subject, (exc.strerror or str(exc)).lower())


@contextlib.contextmanager
def translating(subject: str) -> Iterator[None]:
    """Let an OSError leave as DriverError about ``subject``."""
    try:
        yield
    except OSError as exc:
        raise translated(subject, exc) from exc
