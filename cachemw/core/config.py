"""Settings: every option once, with its reader, its default and its one line of documentation.

The fields of :class:`Settings` are the authority: the sample ini, the
reference page and the error messages come from them. An option is added here
on the day that its part is built, so a name that is not here is an error.

Imports: concurrency, errors, core.presets.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.metadata
import logging
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from .. import concurrency
from ..errors import ConfigError
from .presets import PRESETS, Preset

log = logging.getLogger(__name__)

#: What our option names begin with where they share a section with others'.
PREFIX = "image_cache_"

#: The largest number of threads that an option takes.
MOST_THREADS = 64

#: In place of a default: the preset has it.
FROM_PRESET = "preset"

_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(?:ib)?)?\Z", re.IGNORECASE)
_DURATION_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd]?)\Z")
_TRUE = frozenset({"true", "yes", "on", "y", "t", "1"})
_FALSE = frozenset({"false", "no", "off", "n", "f", "0"})


def parse_size(value: str | int) -> int:
    """Read a size: ``4096``, ``64KiB``, ``1.5 GiB``, ``10G`` (units are powers of 1,024).

    :return: bytes.
    :raises ValueError: says what was expected.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected bytes or a size such as 64KiB, 5MiB, 10GiB or 1TiB")
    number, unit = match.groups()
    return int(Fraction(number) * _SIZE_UNITS[(unit or "").lower()])


def parse_duration(value: str | float) -> float:
    """Read a duration: ``90``, ``30s``, ``5m``, ``12h``, ``1d``.

    :return: seconds.
    :raises ValueError: says what was expected.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    match = _DURATION.match(value.strip().lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected seconds or a duration such as 30s, 5m, 12h or 1d")
    number, unit = match.groups()
    seconds = float(number) * _DURATION_UNITS[unit]
    if not math.isfinite(seconds):
        raise ValueError("expected a duration that ends")
    return seconds


def parse_bool(value: str | bool) -> bool:
    """Read a switch.

    :raises ValueError: says what was expected.
    """
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else None
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError("expected yes or no")


def parse_list(value: str | Sequence[str]) -> tuple[str, ...]:
    """Read several words, separated by commas, blanks or lines.

    :raises ValueError: says what was expected.
    """
    words = re.split(r"[\s,]+", value) if isinstance(value, str) else value
    if not _are_strings(words):
        raise ValueError("expected words separated by commas or lines")
    return tuple(word for word in words if word)


def _are_strings(values: object) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)


def parse_path(value: str | os.PathLike[str]) -> str:
    """Read a directory, made absolute; ``~`` is the user's home.

    :raises ValueError: says what was expected.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError("expected a directory")
    return os.path.abspath(os.path.expanduser(text.strip()))


def parse_routes(value: str | Sequence[str]) -> tuple[str, ...]:
    """Read regular expressions over the request path, one a line.

    :raises ValueError: says which one is not a regular expression, and why.
    """
    lines = value.splitlines() if isinstance(value, str) else value
    if not _are_strings(lines):
        raise ValueError("expected regular expressions, one a line")
    patterns = tuple(line.strip() for line in lines if line.strip())
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as exc:
            raise ValueError(f"expected regular expressions, but {pattern!r} has {exc}") from None
    return patterns


#: In the option ``image_path``, where the id goes.
PLACE = "{image_id}"


def parse_image_path(value: str) -> str:
    """Read the path that fetches an image, quoted as in a URL, with a place for its id.

    :return: empty: there is none.
    :raises ValueError: says what was expected.
    """
    text = value.strip() if isinstance(value, str) else None
    if text is None or (text and re.fullmatch(r"/[!-~]*", text) is None) or set(text) & set("?#"):
        raise ValueError(f"expected a path such as /images/{PLACE}")
    if text and text.count(PLACE) != 1:
        raise ValueError(f"expected a path with {PLACE} in it")
    return text


def parse_fields_source(value: str) -> str:
    """Read where request fields are to be found, which are read when they are needed.

    :return: ``file:`` with an absolute path, ``env:`` with a name, or empty.
    :raises ValueError: says what was expected.
    """
    text = value.strip() if isinstance(value, str) else "?"
    kind, _, rest = text.partition(":")
    if not text or (kind == "env" and re.fullmatch(r"\w+", rest)):
        return text
    if kind == "file" and rest.strip() and "\0" not in rest:
        return f"file:{os.path.abspath(os.path.expanduser(rest.strip()))}"
    raise ValueError("expected file:PATH or env:NAME")


def parse_count(value: str | int) -> int:
    """Read a small number.

    :raises ValueError: says what was expected.
    """
    text = value.strip() if isinstance(value, str) else value
    if isinstance(text, str) and text.isascii() and text.isdigit():
        text = int(text)
    if not isinstance(text, int) or isinstance(text, bool) or not 0 <= text <= MOST_THREADS:
        raise ValueError(f"expected a number from 0 to {MOST_THREADS}")
    return text


def parse_driver(value: str) -> str:
    """Read a driver's name: a word; whether it can be loaded is seen at start-up.

    :raises ValueError: says which drivers there are.
    """
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_.-]+", value.strip()):
        return value.strip()
    known = sorted(point.name for point in importlib.metadata.entry_points(group="cachemw.drivers"))
    raise ValueError(f"expected the name of a driver, such as {', '.join(known)}")


def parse_authorize(value: str) -> str:
    """Read who says who may have a cached copy; a hook is loaded by the filter.

    :raises ValueError: says what was expected.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text.lower() in ("off", "app"):
        return text.lower()
    if re.fullmatch(r"python:[\w.]+:\w+", text):
        return text
    raise ValueError("expected off, app or python:MODULE:FUNCTION")


def parse_on_abort(value: str | float) -> float:
    """Read from when on a fill is finished that lost its clients.

    :return: share of the image that must have been received, 0 to 1; more than 1: never.
    :raises ValueError: says what was expected.
    """
    text = value.strip().lower() if isinstance(value, str) else value
    if isinstance(text, float) and text >= 0:
        return text
    if text in ("finish", "discard"):
        return 0.0 if text == "finish" else math.inf
    match = re.fullmatch(r"(\d{1,3}(?:\.\d+)?)\s*%", text) if isinstance(text, str) else None
    if match is None or float(match[1]) > 100:
        raise ValueError("expected finish, discard or a percentage such as 50%")
    return float(match[1]) / 100


def parse_token(value: str) -> str:
    """Read a secret that clients send in a request field.

    :return: empty: there is none.
    :raises ValueError: says what was expected, and does not repeat the value.
    """
    text = value.strip() if isinstance(value, str) else None
    if text is None or re.fullmatch(r"[!-~]*", text) is None:
        raise ValueError("expected letters, digits and signs without blanks")
    return text


def parse_interval(value: str | float) -> float:
    """Read how often something is done.

    :return: seconds; 0: never.
    :raises ValueError: says what was expected.
    """
    if isinstance(value, str) and value.strip().lower() == "off":
        return 0.0
    try:
        return parse_duration(value)
    except ValueError as exc:
        raise ValueError(f"{exc}, or off") from None


#: Whose values are not shown, since they are secret, or somebody may put the secret itself there.
_SECRET = frozenset({parse_fields_source, parse_token})


def _choice(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        word = value.strip().lower() if isinstance(value, str) else value
        if word not in choices:
            raise ValueError(f"expected {' or '.join(choices)}")
        return word

    read.__doc__ = f"one of {', '.join(choices)}"
    return read


def parse_file(value: str | os.PathLike[str]) -> str:
    """Read the name of a file, made absolute; ``~`` is the user's home.

    :return: empty: there is to be none.
    :raises ValueError: says what was expected.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if isinstance(text, str) and text.strip().lower() == "off":
        return ""
    if not isinstance(text, str) or not text.strip() or text.endswith("/") or "\0" in text:
        raise ValueError("expected off or a file")
    return os.path.abspath(os.path.expanduser(text.strip()))


#: How each reader's values are called on the reference page.
_KINDS: dict[Any, str] = {
    parse_size: "size",
    parse_duration: "duration",
    parse_interval: "off or a duration",
    parse_bool: "yes or no",
    parse_list: "list of words",
    parse_path: "directory",
    parse_file: "off or a file",
    parse_routes: "regular expressions, one a line",
    parse_driver: "name",
    parse_image_path: "path with {image_id}",
    parse_fields_source: "file:PATH or env:NAME",
    parse_count: "number",
    parse_authorize: "off, app or python:MODULE:FUNCTION",
    parse_on_abort: "finish, discard or a percentage",
    parse_token: "text without blanks",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One row of the options' table.

    :param name: as in our own ini section and as a keyword argument.
    :param kind: what its values are, in words.
    :param default: as it would stand in an ini file; ``None``: there is none.
    :param doc: one line for the operator.
    :param read: turns an ini string or a Python value into the setting.
    :param scope: ``"storage"`` for what belongs to the cache directory,
        ``"filter"`` for what belongs to the WSGI filter,
        ``"manage"`` for what belongs to the management API.
    """

    name: str
    kind: str
    default: str | None
    doc: str
    read: Callable[[Any], Any]
    scope: str


def _option(
    read: Callable[[Any], Any], default: str | None, doc: str, scope: str = "storage"
) -> Any:
    """Declare an option; without a default it is required unless it is None by meaning."""
    metadata = {"read": read, "default": default, "doc": doc, "scope": scope}
    return dataclasses.field(metadata=metadata, repr=read not in _SECRET)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option, read and checked. Sizes are bytes, durations seconds."""

    dir: str = _option(parse_path, None, "cache directory; made if missing")
    driver: str = _option(parse_driver, "sqlite", "how images are kept: sqlite or xattr")
    driver_fallback: bool = _option(
        parse_bool, "yes", "use sqlite, with a warning, where the driver cannot work"
    )
    max_size: int = _option(
        parse_size, "10GiB", "bound of entries, fills under way and failed fills together"
    )
    max_image_size: int = _option(
        parse_size, "max_size", "a larger image is passed through, not cached"
    )
    min_free: int = _option(
        parse_size,
        "1GiB",
        "space left free on the file system; what would take it evicts, or is not cached",
    )
    memory_size: int = _option(
        parse_size, "64MiB", "hot small images kept in memory, each process; 0: none"
    )
    stall_time: float = _option(
        parse_duration, "86400", "age at which clean removes an abandoned fill"
    )
    verify_reads: str = _option(
        _choice("size", "first", "always"),
        "size",
        "what is checked of a hit: its size, the whole image once a process, or all that is sent",
    )
    scrub_interval: float = _option(
        parse_interval,
        "off",
        "time within which every entry is read and verified again; off: never",
    )
    durability: str = _option(
        _choice("none", "data", "full"),
        "data",
        "what survives a power cut: no promise, synced images, or directory and index too",
    )
    concurrency: str = _option(
        _choice(*concurrency.MODES),
        "auto",
        "how blocking calls are run, for the whole process; auto: by what is monkey-patched",
    )
    preset: str = _option(
        _choice(*PRESETS),
        "any",
        "the kind of service behind the filter; the default of some other options",
        scope="filter",
    )
    routes: tuple[str, ...] = _option(
        parse_routes,
        FROM_PRESET,
        "paths of image downloads, with (?P<image_id>...); none: every path",
        scope="filter",
    )
    image_path: str = _option(
        parse_image_path,
        FROM_PRESET,
        "path that fetches {image_id}, for prefetching an image that no request named",
        scope="filter",
    )
    content_types: tuple[str, ...] = _option(
        parse_list,
        FROM_PRESET,
        "media types that count as images, as patterns; one that begins with ! excludes",
        scope="filter",
    )
    freshness: str = _option(
        _choice("http", "immutable", "revalidate"),
        FROM_PRESET,
        "how long a copy is served: as its headers say (RFC 9111), for ever, or never unasked",
        scope="filter",
    )
    authorize: str = _option(
        parse_authorize,
        FROM_PRESET,
        "who says at each hit who may have the copy: a request to the app, a function, or nobody",
        scope="filter",
    )
    credential_headers: tuple[str, ...] = _option(
        parse_list, "", "more request fields that count as credentials", scope="filter"
    )

    on_abort: float = _option(
        parse_on_abort,
        "finish",
        "a fill that lost its clients: finish it, discard it, or finish it from a percentage on",
        scope="filter",
    )
    range_miss: str = _option(
        _choice("pass", "queue", "fill", "slice"),
        "queue",
        "a Range request on what is not cached: pass on; queue the image too; fill it; keep parts",
        scope="filter",
    )
    follow_timeout: float = _option(
        parse_duration,
        "30",
        "how long a request waits for the next byte of somebody else's fill",
        scope="filter",
    )
    prefetch_headers: str = _option(
        parse_fields_source,
        "",
        "where the request fields (credentials) for prefetching are, one a line",
        scope="filter",
    )
    prefetch_workers: int = _option(
        parse_count,
        "1",
        "threads that work the queue in each server process; 0 leaves it to cachemw prefetch",
        scope="filter",
    )
    pump: str = _option(
        _choice("any", "leader"),
        "any",
        "which thread may ask the app's answer for more: any reader's, or only the first one's",
        scope="filter",
    )

    access_log: str = _option(
        parse_file,
        "off",
        "file that gets a line for each request for an image, for replaying; off: none",
        scope="filter",
    )

    admin_token: str = _option(
        parse_token,
        "",
        "secret for the management API; without it only clients on this machine may use it",
        scope="manage",
    )

    @classmethod
    def options(cls) -> tuple[Option, ...]:
        """Give the table of options, in the order of the reference page."""
        return tuple(
            Option(
                name=field.name,
                kind=_KINDS.get(field.metadata["read"]) or field.metadata["read"].__doc__,
                **field.metadata,
            )
            for field in dataclasses.fields(cls)
        )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Settings:
        """Read keyword options: Python values or ini strings.

        :raises ConfigError: names the option, its value and what was expected.
        """
        table = {option.name: option for option in cls.options()}
        for name in options:
            if name not in table:
                raise ConfigError(_unknown(name, table))
        texts = {o.name: o.default for o in table.values() if o.default is not None}
        given = {**texts, **{name: v for name, v in options.items() if v is not None}}
        if given["max_image_size"] == "max_size":
            given["max_image_size"] = given["max_size"]
        if "dir" not in given:
            raise ConfigError("option 'dir' is missing: expected the cache directory")
        preset = PRESETS[_read(table["preset"], given["preset"])]
        return cls(**{name: _read(table[name], value, preset) for name, value in given.items()})

    @property
    def service(self) -> Preset:
        """What is known of the kind of service."""
        return PRESETS[self.preset]

    @classmethod
    def from_conf(cls, global_conf: Mapping[str, str], local_conf: Mapping[str, str]) -> Settings:
        """Read an ini file's sections as PasteDeploy hands them over.

        :param global_conf: ``[DEFAULT]``, where our names have :data:`PREFIX`;
            other names are somebody else's.
        :param local_conf: our own section.
        :raises ConfigError: names the option, its value and what was expected.
        """
        names = {option.name for option in cls.options()}
        shared = {}
        for key, value in global_conf.items():
            if key.startswith(PREFIX):
                name = key.removeprefix(PREFIX)
                if name in names:
                    shared[name] = value
                else:
                    log.warning("[DEFAULT] %s is not an option of cachemw and is ignored", key)
        # Swift's loader adds the section's own name.
        ours = {name: value for name, value in local_conf.items() if name != "__name__"}
        return cls.from_options({**shared, **ours})

    def changed(self, options: Mapping[str, Any]) -> Settings:
        """Give these settings with some of the filter's own options changed.

        :raises ConfigError: also for an option of the storage, which is in use already.
        """
        table = {option.name: option for option in self.options()}
        for name in options:
            if name not in table:
                raise ConfigError(_unknown(name, table))
            if table[name].scope == "storage":
                raise ConfigError(
                    f"option {name!r} belongs to the ImageCache that was given: set it there"
                )
        given = {name: value for name, value in options.items() if value is not None}
        if "preset" in given:
            # What it decides is decided anew, but for what is given beside it.
            given = {
                **{o.name: FROM_PRESET for o in table.values() if o.default == FROM_PRESET},
                **given,
            }
        preset = PRESETS[_read(table["preset"], given.get("preset", self.preset))]
        read = {name: _read(table[name], value, preset) for name, value in given.items()}
        return dataclasses.replace(self, **read)


def _read(option: Option, value: Any, preset: Preset | None = None) -> Any:
    if preset is not None and option.default == FROM_PRESET and value in (FROM_PRESET, None):
        value = getattr(preset, option.name)
    try:
        return option.read(value)
    except ValueError as exc:
        shown = "a value that is not shown" if option.read in _SECRET else f"the value {value!r}"
        raise ConfigError(f"option {option.name!r} has {shown}: {exc}") from None


def _unknown(name: str, table: Mapping[str, Option]) -> str:
    near = difflib.get_close_matches(name.removeprefix(PREFIX), table, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(table)}"
    return f"unknown option {name!r}: {hint}"
