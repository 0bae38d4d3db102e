"""Proxy app: streams from an upstream HTTP server.

With it a cache can stand in front of a server that is not Python. In a paste
ini file::

    [app:proxy]
    use = egg:cachemw#proxy
    # http or https, and a path that is put before each request's; required.
    upstream = http://images.internal:8080/v2
    # How long the upstream may leave us without a byte: seconds, or 5m.
    timeout = 60
    # How long a connection may take.
    connect_timeout = 10
    # Idle connections kept for the next requests, in each process.
    pool_size = 32

Needs ``pip install 'cachemw[serve]'``. The request goes out as it came in: its
path is not written anew, its ranges and conditions are the upstream's to
answer. An upstream that cannot be reached is a 502, one that is too slow a 504.
One that breaks off in mid-body makes the body raise, so that the server cuts
the client's connection; a body without a length and without chunks ends where
its connection does, so there nobody can tell.

X-Forwarded-For, -Proto and -Host of the request are believed and passed on:
where clients reach this app directly, the web server in front should set them.

Any number of threads may call the app.

Imports: errors, web.apps._options, web.apps._upstream, web.fields.
"""

from __future__ import annotations

import http
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...errors import ConfigError, RequestFailed, UpstreamFailed, UpstreamTimeout
from .. import fields
from ._options import parse_count, parse_timeout, read_options

try:
    from . import _upstream
except ImportError:  # the extra is not installed; the app says so when it is made
    _upstream = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: Bytes of a request body read and sent at once.
BLOCK = 64 * 1024

#: Request fields that we set ourselves, or that are answered on our side.
_OWN_FIELDS = frozenset(
    (
        "content-length",
        "content-type",
        "expect",
        "host",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    )
)

_NOT_IN_TARGET = re.compile(r"[^!-~]|[#]")
_OCTET = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)


class ProxyApp:
    """Passes each request to one upstream server and streams the answer.

    :param upstream: ``http://`` or ``https://`` URL, perhaps with a path.
    :param timeout: seconds that the upstream may leave us without a byte.
    :param connect_timeout: seconds that a connection may take.
    :param pool_size: idle connections kept; more may be in use.
    :raises ConfigError: the URL is not one, or urllib3 is not installed.
    """

    def __init__(
        self,
        upstream: str,
        timeout: float = 60,
        connect_timeout: float = 10,
        pool_size: int = 32,
    ) -> None:
        if _upstream is None:
            raise ConfigError("the proxy app needs urllib3: pip install 'cachemw[serve]'")
        url = _parse_upstream(upstream)
        self._host = url.netloc
        self._prefix = url.path.rstrip("/")
        self._upstream = _upstream.Upstream(
            url.scheme,
            url.hostname or "",
            url.port or (443 if url.scheme == "https" else 80),
            timeout=timeout,
            connect_timeout=connect_timeout,
            pool_size=pool_size,
        )

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            body, length = _request_body(environ)
            answer = self._upstream.exchange(
                _upstream.Exchange(
                    method=environ["REQUEST_METHOD"],
                    target=self._prefix + target(environ),
                    headers=self._request_headers(environ),
                    body=body,
                    length=length,
                )
            )
        except _Unreadable as exc:
            return _refuse(environ, start_response, exc.status, exc.reason)
        except RequestFailed as exc:
            log.info("%s %s: %s", environ["REQUEST_METHOD"], environ.get("PATH_INFO"), exc)
            return _refuse(environ, start_response, 400, "the request cannot be passed on")
        except UpstreamTimeout as exc:
            log.warning("upstream %s is too slow: %s", self._host, exc)
            return _refuse(environ, start_response, 504, "the upstream server took too long")
        except UpstreamFailed as exc:
            log.warning("upstream %s failed: %s", self._host, exc)
            return _refuse(environ, start_response, 502, "the upstream server failed")
        try:
            headers = _response_headers(answer.status, answer.headers)
            start_response(f"{answer.status} {answer.reason or _phrase(answer.status)}", headers)
        except BaseException:
            answer.close()
            raise
        return [] if answer.bodyless else answer

    def close(self) -> None:
        """Close the idle connections."""
        self._upstream.close()

    def _request_headers(self, environ: Environ) -> list[tuple[str, str]]:
        came = [
            (key[5:].replace("_", "-").title(), value)
            for key, value in environ.items()
            if key.startswith("HTTP_") and value is not None
        ]
        passed = [pair for pair in fields.end_to_end(came) if pair[0].lower() not in _OWN_FIELDS]
        if environ.get("CONTENT_TYPE"):
            passed.append(("Content-Type", environ["CONTENT_TYPE"]))
        return [("Host", self._host), *passed, *_forwarding(environ)]


def app_factory(global_conf: Mapping[str, str], **local_conf: str) -> ProxyApp:
    """Build the proxy app: ``use = egg:cachemw#proxy``.

    :param global_conf: the ``[DEFAULT]`` section; nothing of it is ours.
    :param local_conf: our own section; a key we do not know is an error.
    :raises ConfigError: names the option, its value and what was expected.
    """
    options = read_options(
        local_conf,
        {
            "upstream": str.strip,
            "timeout": parse_timeout,
            "connect_timeout": parse_timeout,
            "pool_size": parse_count,
        },
        required=["upstream"],
    )
    return ProxyApp(options.pop("upstream"), **options)


def target(environ: Environ) -> str:
    """The request target below the app's mount point, as the client wrote it.

    The path is taken from the raw one where that is the path the server
    decoded, else quoted anew: ``%2F`` and ``/`` are different images.

    :return: path and query.
    """
    path = _raw_path(environ)
    if path is None:
        path = urllib.parse.quote(
            environ.get("PATH_INFO", "").encode("latin-1"), safe="/!$&'()*+,;=:@~"
        )
    if not path.startswith("/"):
        path = f"/{path}"
    query = environ.get("QUERY_STRING", "")
    return _NOT_IN_TARGET.sub(_quote_match, f"{path}?{query}" if query else path)


class _Unreadable(Exception):
    """The request's body has no form that we can read.

    :param status: what to answer.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def _parse_upstream(upstream: str) -> urllib.parse.SplitResult:
    """Take the upstream's URL apart.

    :raises ConfigError: it is not an http or https URL of a server and a path.
    """
    try:
        url = urllib.parse.urlsplit(upstream)
        _ = url.port
        good = url.scheme in ("http", "https") and bool(url.hostname) and "@" not in url.netloc
    except ValueError:
        good = False
    if not good or re.search(r"[^!-~]|[?#]", upstream):
        raise ConfigError(
            f"option 'upstream' has the value {upstream!r}: expected http:// or https://,"
            " a host, and perhaps a port and a path"
        )
    return url


def _raw_path(environ: Environ) -> str | None:
    """The path below the mount point as the client quoted it; ``None`` if it is not known."""
    script = environ.get("SCRIPT_NAME", "").encode("latin-1")
    whole = script + environ.get("PATH_INFO", "").encode("latin-1")
    for key in ("RAW_URI", "REQUEST_URI"):
        raw = environ.get(key, "").partition("?")[0]
        if not raw.startswith("/"):  # the absolute form, RFC 9112, section 3.2.2
            raw = re.sub(r"\A[A-Za-z][A-Za-z0-9+.-]*://[^/]*", "", raw)
        octets = _OCTET.findall(raw)
        if raw and urllib.parse.unquote_to_bytes(raw.encode("latin-1")) == whole:
            return "".join(octets[len(script) :])
    return None


def _forwarding(environ: Environ) -> Iterator[tuple[str, str]]:
    """What the upstream is told about the client.

    Source: RFC 9110, section 7.6.3, for Via.
    """
    client = [environ.get("HTTP_X_FORWARDED_FOR"), environ.get("REMOTE_ADDR")]
    if any(client):
        yield "X-Forwarded-For", ", ".join(filter(None, client))
    yield "X-Forwarded-Proto", environ.get("HTTP_X_FORWARDED_PROTO") or environ["wsgi.url_scheme"]
    host = environ.get("HTTP_X_FORWARDED_HOST") or environ.get("HTTP_HOST")
    if host:
        yield "X-Forwarded-Host", host
    version = environ.get("SERVER_PROTOCOL", "HTTP/1.1").removeprefix("HTTP/")
    yield "Via", ", ".join(filter(None, [environ.get("HTTP_VIA"), f"{version} cachemw"]))


def _request_body(environ: Environ) -> tuple[Iterable[bytes] | None, int | None]:
    """The request's body in blocks.

    :return: the blocks, and their length in bytes if it is known.
    :raises _Unreadable: it has a body of which we cannot find the end.

    Source: RFC 9112, section 6.3.
    """
    source = environ["wsgi.input"]
    coding = environ.get("HTTP_TRANSFER_ENCODING")
    if coding:
        if coding.strip().lower() != "chunked":
            raise _Unreadable(501, "chunked is the only transfer coding there is here")
        if not environ.get("wsgi.input_terminated"):
            raise _Unreadable(411, "this server takes request bodies with a length only")
        return _blocks(source, None), None
    text = environ.get("CONTENT_LENGTH") or ""
    if not text:
        return None, None
    if not re.fullmatch("[0-9]+", text):
        raise _Unreadable(400, "the content length is not a number")
    length = int(text)
    return (_blocks(source, length) if length else None), length


def _blocks(source: Any, length: int | None) -> Iterator[bytes]:
    """Read a request body.

    :param length: bytes there must be; ``None``: all until the end.
    :raises RequestFailed: the client broke off. Any other error would look
        like the upstream's.
    """
    while length is None or length:
        try:
            block = source.read(BLOCK if length is None else min(BLOCK, length))
        except (OSError, ValueError) as exc:
            raise RequestFailed(f"the request body broke off: {exc}") from exc
        if not block and length is not None:
            raise RequestFailed(f"the request body is {length} bytes too short")
        if not block:
            return
        length = None if length is None else length - len(block)
        yield block


def _response_headers(status: int, headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    passed = fields.end_to_end(list(headers))
    if status in (204, 304):
        # WSGI servers and checkers take a type without a body for a mistake.
        passed = [pair for pair in passed if pair[0].lower() != "content-type"]
    return passed


def _refuse(
    environ: Environ, start_response: StartResponse, status: int, text: str
) -> Iterable[bytes]:
    body = f"{text}\n".encode()
    start_response(
        f"{status} {_phrase(status)}",
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ],
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _quote_match(match: re.Match[str]) -> str:
    return urllib.parse.quote(match[0].encode("latin-1"), safe="")
