"""What a request to the management API asks: its path, its query and its body.

Imports: web.manage.answers.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, unquote_to_bytes

from .answers import Problem

#: Where servers put the target as it was sent.
_RAW_TARGETS = ("RAW_URI", "REQUEST_URI")

#: What precedes the path in an absolute-form target (RFC 9112, section 3.2.2).
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]*")

_SLASHES = re.compile("//+")

#: Bytes of a body, at the most.
_LONGEST = 64 * 2**10


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    :param base: the mount point, quoted.
    :param path: below it, unquoted.
    :param argument: the id in it, or the like.
    """

    environ: Mapping[str, Any]
    base: str
    path: str
    argument: str

    @property
    def method(self) -> str:
        method: str = self.environ["REQUEST_METHOD"]
        return method

    def query(self, *known: str) -> dict[str, str]:
        """Read the query string.

        :param known: the parameters that there are.
        :raises Problem: it has others, or one twice.
        """
        text = self.environ.get("QUERY_STRING", "")
        read: dict[str, str] = {}
        for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
            if name not in known:
                expected = ", ".join(known) or "none"
                raise Problem(400, f"unknown parameter {name!r}: expected {expected}")
            if name in read:
                raise Problem(400, f"the parameter {name!r} is there twice")
            read[name] = value
        return read

    def options(self) -> dict[str, Any]:
        """Read the body: a JSON object, or nothing.

        :raises Problem: it is something else, or too long.
        """
        body = self._body()
        if not body.strip():
            return {}
        try:
            options = json.loads(body)
        except (ValueError, RecursionError):
            raise Problem(400, "the body is not JSON") from None
        if not isinstance(options, dict):
            raise Problem(400, "the body is not a JSON object")
        return options

    def _body(self) -> bytes:
        length = self.environ.get("CONTENT_LENGTH") or ""
        if length and not re.fullmatch("[0-9]{1,18}", length):
            raise Problem(400, "the field Content-Length is no number")
        if not length and not self.environ.get("wsgi.input_terminated"):
            return b""
        size = int(length) if length else _LONGEST + 1
        if size > _LONGEST and length:
            raise Problem(413, f"the body is longer than {_LONGEST} bytes")
        body: bytes = self.environ["wsgi.input"].read(size)
        if len(body) > _LONGEST:
            raise Problem(413, f"the body is longer than {_LONGEST} bytes")
        return body


def path_of(environ: Mapping[str, Any]) -> str:
    """Give a request's path below the mount point, unquoted once.

    The target as it was sent is used where it says the same as PATH_INFO, but for what some
    servers do to that: they join slashes, or leave them quoted. Octets that are not UTF-8
    become lone surrogates.
    """
    script, path = environ.get("SCRIPT_NAME", ""), environ.get("PATH_INFO", "")
    octets = _octets(path)
    raw = next(filter(None, map(environ.get, _RAW_TARGETS)), None)
    if raw:
        target = _ORIGIN.sub("", raw, count=1) if not raw.startswith("/") else raw
        sent = unquote_to_bytes(target.partition("?")[0].encode("latin-1", "replace"))
        mount = _octets(script)
        if sent.startswith(mount) and _loosely(sent[len(mount) :]) == _loosely(octets):
            octets = sent[len(mount) :]
    return octets.decode("utf-8", "surrogateescape")


def quoted(text: str) -> str:
    """Quote a part of the environ's path."""
    return quote(_octets(text))


def _octets(text: str) -> bytes:
    # PEP 3333 wants octets as Latin-1.
    return text.encode("latin-1", "replace")


def _loosely(octets: bytes) -> str:
    return _SLASHES.sub("/", unquote(octets.decode("latin-1"), "latin-1"))


def number_of(query: Mapping[str, str], name: str) -> int | None:
    """Read a parameter that is a whole number, from 1 on; ``None``: it is not there.

    :raises Problem: it is something else.
    """
    text = query.get(name)
    if text is None:
        return None
    if re.fullmatch("[0-9]{1,9}", text) is None or int(text) < 1:
        raise Problem(400, f"the parameter {name!r} has the value {text!r}: expected 1 or more")
    return int(text)
