"""Images app: a directory of images over HTTP.

In a paste ini file::

    [app:images]
    use = egg:cachemw#images
    # The directory; required.
    dir = /srv/images
    # How long a cache may keep an image before it asks again: seconds, or 1h.
    max_age = 3600
    # The speed of each response in bytes per second, such as 16MiB; none: no limit.
    rate_limit = none
    # Put a few sample images into a directory that is missing or empty.
    samples = no

Files are answered with validators and ranges, directories with a list. What
begins with a dot is not there, nor is a symbolic link that leads out of the
directory; a link that stays inside is followed. The thread that answers with a
rate limit sleeps in between.

Any number of threads may call the app.

Imports: core.config, errors, web.apps._options, web.apps._pacing, web.apps._samples, web.fields,
web.respond.
"""

from __future__ import annotations

import errno
import html
import mimetypes
import os
import re
import stat
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from webob import Request, Response

from ...core.config import parse_bool, parse_duration, parse_path, parse_size
from ...errors import ConfigError
from .. import fields
from ..respond import OpenFile, respond
from ._options import read_options
from ._pacing import PacedBody
from ._samples import add_samples

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

#: Disk images, for which there is no type that every client agrees on.
_DISK_IMAGE = re.compile(r"\.(?:bin|dd|img|iso|qcow2?|qed|raw|vdi|vhdx?|vmdk|wim)\Z", re.IGNORECASE)

#: A compressed file is sent as what it is: naming the coding in
#: Content-Encoding would let clients unpack it (RFC 9110, section 8.4).
_COMPRESSED = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}

#: Not the machine's own tables: the same file has the same type everywhere.
_TYPES = mimetypes.MimeTypes()
_TYPES.add_type("application/zstd", ".zst")
_TYPES.add_type("image/jxl", ".jxl")
_TYPES.add_type("image/webp", ".webp")

#: What open(2) says when there is nothing for the client under that name.
_NOT_THERE = frozenset(
    (
        errno.EACCES,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENODEV,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
        errno.EPERM,
    )
)

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 1rem/1.6 system-ui, sans-serif; margin: 2rem auto; max-width: 50rem }}
td:last-child {{ padding-left: 2rem; text-align: right; font-variant-numeric: tabular-nums }}
</style>
<h1>{title}</h1>
<table>
{rows}
</table>
</html>
"""


class ImagesApp:
    """Serves the files below one directory.

    :param directory: where the images are.
    :param max_age: seconds for which a cache may keep an image unasked.
    :param rate_limit: bytes per second of each response; ``None``: no limit.
    :param samples: fill a directory that is missing or empty with a few images.
    :raises ConfigError: there is no such directory, or the samples do not fit.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        max_age: float = 3600,
        rate_limit: int | None = None,
        samples: bool = False,
    ) -> None:
        if samples:
            try:
                add_samples(os.fspath(directory))
            except OSError as exc:
                raise ConfigError(
                    f"option 'dir' has the value {os.fspath(directory)!r}:"
                    f" expected a directory for sample images, but {exc}"
                ) from exc
        if not os.path.isdir(directory):
            raise ConfigError(
                f"option 'dir' has the value {os.fspath(directory)!r}:"
                " expected an existing directory"
            )
        self._root = os.path.realpath(directory)
        self._cache_control = f"public, max-age={int(max_age)}"
        self._rate_limit = rate_limit

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            refusal = _message(405, "Only GET and HEAD are allowed here.")
            refusal.headers["Allow"] = "GET, HEAD"
            return refusal(environ, start_response)
        path = environ.get("PATH_INFO", "")
        names = _names(path)
        real = None if names is None else _resolve(self._root, names)
        descriptor = None if real is None else _open(self._root, real)
        if real is None or descriptor is None:
            return _missing(environ, start_response)
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and not path.endswith("/"):
                source, descriptor = OpenFile(descriptor), None
                return self._file(environ, start_response, source, status, real)
            if not stat.S_ISDIR(status.st_mode):
                return _missing(environ, start_response)
            if not path.endswith("/"):
                return _redirect(environ, start_response)
            page = _index(path, _entries(self._root, real, descriptor))
            return page(environ, start_response)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _file(
        self,
        environ: Environ,
        start_response: StartResponse,
        source: OpenFile,
        status: os.stat_result,
        real: Sequence[str],
    ) -> Iterable[bytes]:
        headers = [
            ("Content-Type", content_type(real[-1])),
            ("Cache-Control", self._cache_control),
            ("ETag", f'"{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ino:x}"'),
            # RFC 9110, section 8.8.2.1: never later than the response itself.
            ("Last-Modified", fields.format_http_date(min(status.st_mtime, time.time()))),
        ]
        if self._rate_limit is None:
            return respond(environ, start_response, source, size=status.st_size, headers=headers)
        paced = {name: value for name, value in environ.items() if name != "wsgi.file_wrapper"}
        body = respond(paced, start_response, source, size=status.st_size, headers=headers)
        return PacedBody(body, self._rate_limit)


def app_factory(global_conf: Mapping[str, str], **local_conf: str) -> ImagesApp:
    """Build the images app: ``use = egg:cachemw#images``.

    :param global_conf: the ``[DEFAULT]`` section; nothing of it is ours.
    :param local_conf: our own section; a key we do not know is an error.
    :raises ConfigError: names the option, its value and what was expected.
    """
    options = read_options(
        local_conf,
        {
            "dir": parse_path,
            "max_age": parse_duration,
            "rate_limit": parse_rate,
            "samples": parse_bool,
        },
        required=["dir"],
    )
    return ImagesApp(options.pop("dir"), **options)


def parse_rate(text: str) -> int | None:
    """Read a speed: a size for each second, or ``none``.

    :return: bytes per second; ``None``: no limit.
    :raises ValueError: says what was expected.
    """
    if text.strip().lower() in ("", "none"):
        return None
    rate = parse_size(text)
    if not rate:
        raise ValueError("expected none, or more than 0 bytes per second")
    return rate


def content_type(name: str) -> str:
    """The media type of a file, by its name alone."""
    if _DISK_IMAGE.search(name):
        return "application/octet-stream"
    # The slash keeps a name such as "data:x" from being read as a URL.
    media_type, encoding = _TYPES.guess_type(f"/{name}", strict=False)
    if encoding is not None:
        media_type = _COMPRESSED.get(encoding)
    return media_type or "application/octet-stream"


def _names(path: str) -> list[str] | None:
    """The names along a request path; ``None`` if nothing can be there.

    An empty name inside the path is refused, so that each image has one URL;
    names that begin with a dot are hidden files, ``.`` and ``..``.
    """
    if path in ("", "/"):
        return []
    first, *names = os.fsdecode(path.removesuffix("/").encode("latin-1")).split("/")
    if (
        first
        or not names
        or any(not name or name.startswith(".") or "\0" in name for name in names)
    ):
        return None
    return names


def _resolve(root: str, names: Sequence[str]) -> list[str] | None:
    """The names below ``root`` with symbolic links followed; ``None`` if they lead out.

    :param root: a real path.
    """
    real = os.path.realpath(os.path.join(root, *names))
    if real == root:
        return []
    inside = os.path.join(root, "")
    if not real.startswith(inside):
        return None
    resolved = real.removeprefix(inside).split(os.sep)
    return None if any(name.startswith(".") for name in resolved) else resolved


def _open(root: str, names: Sequence[str]) -> int | None:
    """Open a file or directory below ``root``, following no link on the way.

    The links were followed before; one that was put there since is not there.

    :return: a descriptor, or ``None`` if there is nothing to be opened.
    :raises OSError: it may be there, but the machine is in trouble.

    Source: openat(2). O_NONBLOCK: a FIFO without a writer must not block us.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(root, flags | os.O_DIRECTORY)
        for depth, name in enumerate(names, 1):
            parent, kind = descriptor, os.O_DIRECTORY if depth < len(names) else 0
            try:
                descriptor = os.open(name, flags | kind, dir_fd=parent)
            finally:
                os.close(parent)
    except OSError as exc:
        if exc.errno in _NOT_THERE:
            return None
        raise
    return descriptor


def _entries(root: str, real: Sequence[str], descriptor: int) -> list[tuple[str, int | None]]:
    """What a directory's page lists, directories first.

    :param descriptor: the directory, open; still open afterwards.
    :return: names with sizes in bytes; a directory's is ``None``.
    """
    found: list[tuple[str, int | None]] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_symlink() and _resolve(root, [*real, entry.name]) is None:
                continue
            try:
                status = entry.stat()
            except OSError:  # deleted meanwhile, or a link to nothing
                continue
            if stat.S_ISDIR(status.st_mode):
                found.append((entry.name, None))
            elif stat.S_ISREG(status.st_mode):
                found.append((entry.name, status.st_size))
    return sorted(found, key=lambda item: (item[1] is not None, item[0]))


def _index(path: str, entries: Iterable[tuple[str, int | None]]) -> Response:
    rows = ['<tr><td><a href="../">../</a><td>'] if path.strip("/") else []
    for name, size in entries:
        mark = "/" if size is None else ""
        link = urllib.parse.quote(os.fsencode(name), safe="") + mark
        shown = html.escape(os.fsencode(name).decode(errors="replace")) + mark
        rows.append(f'<tr><td><a href="{link}">{shown}</a><td>{_human(size)}')
    here = html.escape(path.encode("latin-1").decode(errors="replace") or "/")
    page = _PAGE.format(title=f"Images in {here}", rows="\n".join(rows))
    response = _answer(200, page, "text/html")
    response.headers["Content-Security-Policy"] = "default-src 'none'; style-src 'unsafe-inline'"
    return response


def _human(size: int | None) -> str:
    """A size to be read by people."""
    if size is None:
        return ""
    if size < 1024:
        return f"{size} bytes"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1024:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} TiB"


def _missing(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return _message(404, "There is no such image.")(environ, start_response)


def _redirect(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Send the client to the same directory with its slash, by absolute URL."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    query = environ.get("QUERY_STRING", "")
    response = _message(301, "The directory is at the same path with a slash at its end.")
    response.location = (
        Request(environ).host_url
        + urllib.parse.quote(path.encode("latin-1"))
        + (f"/?{query}" if query else "/")
    )
    return response(environ, start_response)


def _message(status: int, text: str) -> Response:
    return _answer(status, f"{text}\n", "text/plain")


def _answer(status: int, text: str, media_type: str) -> Response:
    """A small whole response; webob leaves its body out, not its length, for HEAD."""
    response = Response(
        status=status,
        body=text.encode("utf-8", "replace"),
        content_type=media_type,
        charset="utf-8",
    )
    response.headers["Cache-Control"] = "no-cache"
    return response
