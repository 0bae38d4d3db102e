"""Who may have a cached copy: the option ``authorize``.

With ``app`` every hit is put to the app as a conditional request under the
client's own credentials (``web.forward``). With ``python:MODULE:FUNCTION`` a
function is asked::

    def function(environ, image_id, entry) -> bool

``True`` lets the copy out; with ``False``, or if it raises, the request is
the app's to answer. It raises :class:`~cachemw.errors.ImageCorrupt` to have a
wrong copy dropped. A function ``expected(environ, image_id)`` beside it, if
there is one, gives the checksums that a copy about to be made must have.

Imports: core.checksum, errors, web.hits.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from typing import Any

from ..core.checksum import Checksum, parse_checksum
from ..errors import ConfigError, ImageCorrupt
from .hits import AnyEntry

log = logging.getLogger(__name__)


class Hook:
    """A function that says who may have a copy.

    :param option: ``python:MODULE:FUNCTION``.
    :raises ConfigError: there is no such function.
    """

    def __init__(self, option: str) -> None:
        _, module_name, name = option.split(":")
        try:
            module = importlib.import_module(module_name)
            function = getattr(module, name)
        except Exception as exc:  # whatever a module may raise as it is imported
            raise _refusal(option, f"{type(exc).__name__}: {exc}") from exc
        if not callable(function):
            raise _refusal(option, f"{name} is of type {type(function).__name__}")
        self._function: Callable[..., object] = function
        self._expected: Callable[..., Any] | None = getattr(module, "expected", None)

    def allows(self, environ: dict[str, Any], image_id: str, entry: AnyEntry) -> bool:
        """Ask whether a request may have a copy; whatever goes wrong is a no.

        :raises ImageCorrupt: the copy is wrong.
        """
        try:
            return bool(self._function(environ, image_id, entry))
        except ImageCorrupt:
            raise
        except Exception:
            log.exception("asking who may have %s failed; the request goes to the app", image_id)
            return False

    def expected(self, environ: dict[str, Any], image_id: str) -> tuple[Checksum, ...]:
        """Give the checksums that a new copy must have, the strongest first."""
        if self._expected is None:
            return ()
        try:
            return tuple(map(parse_checksum, self._expected(environ, image_id)))
        except Exception:
            log.exception("asking for the checksums of %s failed", image_id)
            return ()


def _refusal(option: str, reason: str) -> ConfigError:
    return ConfigError(
        f"option 'authorize' has the value {option!r}: expected a function that can be imported,"
        f" but {reason}"
    )
