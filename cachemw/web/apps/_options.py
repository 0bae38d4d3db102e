"""Options of the small apps: read each once, and stop the start on a mistake.

A table of readers says which options an app has. A reader takes the ini text
and raises :class:`ValueError` with what was expected, as those of
``core.config`` do.

Imports: errors, core.config.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ...core.config import parse_duration
from ...errors import ConfigError

Reader = Callable[[str], Any]


def read_options(
    local_conf: Mapping[str, str], readers: Mapping[str, Reader], required: Collection[str] = ()
) -> dict[str, Any]:
    """Read an app's own ini section.

    :param local_conf: the section as PasteDeploy hands it over.
    :param readers: the reader of each option there is.
    :param required: options that must be given.
    :return: the options that were given, as Python values.
    :raises ConfigError: names the option, its value and what was expected.
    """
    for name, text in local_conf.items():
        if name not in readers:
            near = difflib.get_close_matches(name, readers, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(readers)}"
            raise ConfigError(f"unknown option {name!r} with the value {text!r}: {hint}")
    for name in required:
        if name not in local_conf:
            raise ConfigError(f"option {name!r} is missing: this app cannot do without it")
    return {name: _read(name, text, readers[name]) for name, text in local_conf.items()}


def parse_timeout(text: str) -> float:
    """Read a time limit: a duration that is not zero.

    :return: seconds.
    :raises ValueError: says what was expected.
    """
    seconds = parse_duration(text)
    if seconds <= 0:
        raise ValueError("expected more than 0 seconds")
    return seconds


def parse_count(text: str) -> int:
    """Read a number of things, at least one.

    :raises ValueError: says what was expected.
    """
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError("expected a whole number, 1 or more")
    return int(text)


def _read(name: str, text: str, reader: Reader) -> Any:
    try:
        return reader(text)
    except ValueError as exc:
        raise ConfigError(f"option {name!r} has the value {text!r}: {exc}") from None
