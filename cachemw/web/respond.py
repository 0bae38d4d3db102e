"""Answer GET and HEAD from an open file: 200, 206, 304, 412 or 416.

The file is handed to the server's ``wsgi.file_wrapper`` whole, so that it can
use sendfile(2). Part of a file goes that way only on servers that were shown
to start at the file's offset; elsewhere an iterator reads the part in blocks.
What is in memory already goes out as it is. What is checked as it is read
always goes by the iterator, and its first block is read before the answer
begins, so that one that is found damaged there can still be had elsewhere.

Imports: concurrency, web.conditional, web.fields, web.ranges.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import re
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from .. import concurrency
from . import fields
from .conditional import evaluate, range_applies
from .ranges import content_range, multipart, parse_range, unsatisfied_range

#: Bytes read at once where the server has no sendfile.
BLOCK = 512 * 1024

#: What a 304 repeats of the 200 (RFC 9110, section 15.4.5).
_NOT_MODIFIED_FIELDS = frozenset(
    {"cache-control", "content-location", "date", "etag", "expires", "vary"}
)

#: An error answer without a body; validators of WSGI want a type all the same.
_NO_BODY = (("Content-Type", "text/plain"), ("Content-Length", "0"))

#: Fields that are true of a whole body only, and the one that would be there twice
#: (RFC 9110, section 15.3.7).
_WHOLE_BODY_FIELDS = frozenset({"content-md5", "content-digest", "content-range"})


#: Of a body: bytes, or where a part of the image begins and ends.
Segment = bytes | tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Representation:
    """What is known of an image before a request selects a part of it.

    :param headers: fields of its 200 response, without Content-Length.
    :param size: bytes.
    :param etag: entity tag as sent, or ``None``.
    :param last_modified: seconds since the epoch, or ``None``.
    :param date: seconds since the epoch of its Date field, or ``None``.
    :param whole: fields of its 200 response, with it.
    """

    headers: tuple[tuple[str, str], ...]
    size: int
    etag: str | None
    last_modified: float | None
    date: float | None
    whole: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, headers: Sequence[tuple[str, str]], size: int) -> Representation:
        """Read the validators from the fields."""
        kept = [pair for pair in headers if pair[0].lower() != "content-length"]
        if fields.get(kept, "accept-ranges") is None:
            kept.append(("Accept-Ranges", "bytes"))
        modified = fields.get(kept, "last-modified")
        date = fields.get(kept, "date")
        return cls(
            headers=tuple(kept),
            size=size,
            etag=fields.get(kept, "etag"),
            last_modified=fields.parse_http_date(modified) if modified else None,
            date=fields.parse_http_date(date) if date else None,
            whole=(*kept, ("Content-Length", str(size))),
        )


class Source(Protocol):
    """The bytes of an image: an :class:`~cachemw.drivers.base.Entry`, or one in memory.

    Iterating gives them all, in blocks.
    """

    def __iter__(self) -> Iterator[bytes]: ...

    @property
    def data(self) -> bytes | None:
        """The whole image, if it is in memory."""

    @property
    def is_checked(self) -> bool:
        """Whether :meth:`pread` compares the bytes with checksums, so that nothing else may
        read them."""

    @property
    def is_offloaded(self) -> bool:
        """Whether :meth:`pread` is called by a native thread where requests share a hub's."""

    def pread(self, size: int, position: int, /) -> bytes:
        """Give up to ``size`` bytes from ``position``."""

    def close(self) -> None:
        """Let go of it; a second close does nothing."""


class OpenFile(io.FileIO):
    """A file of its own, as a source."""

    data = None
    is_checked = False
    is_offloaded = True

    def pread(self, size: int, position: int, /) -> bytes:
        """Give up to ``size`` bytes from ``position``."""
        return os.pread(self.fileno(), size, position)


class Segments:
    """A response body made of parts of a file, and bytes between them.

    Reads with ``pread``, so the file's own offset does not matter. Closing it
    closes the file; a second close does nothing.

    :param segments: bytes, and where parts begin and end.
    :raises ImageCorrupt: in place of bytes that were found damaged; ``position`` says where the
        image's bytes that were given end.
    """

    def __init__(self, source: Source, segments: Iterable[Segment]) -> None:
        self._source = source
        # Not an iterator over a list, which would hold on to what was given.
        self._segments = deque(segments)
        #: Of the image: where the next block begins.
        self.position = 0
        self._stop = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        while self.position >= self._stop:
            if not self._segments:
                raise StopIteration
            segment = self._segments.popleft()
            if isinstance(segment, bytes):
                return segment
            self.position, self._stop = segment
        block = _read_block(self._source, self.position, self._stop)
        self.position += len(block)
        return block

    def close(self) -> None:
        self._source.close()


def _read_block(source: Source, start: int, stop: int) -> bytes:
    """Read the first bytes of a part, which are not empty.

    :raises ImageCorrupt: they are damaged.
    """
    # Up to a multiple, so that a source which is checked in chunks reads none of them twice.
    wanted = min(BLOCK - start % BLOCK, stop - start)
    if source.is_offloaded:
        block = concurrency.run_blocking(source.pread, wanted, start)
    else:
        block = source.pread(wanted, start)
    if not block:
        # Raising lets the server cut the connection; ending would look complete.
        raise OSError(f"file ends at byte {start}, before byte {stop}")
    return block


def _begun(source: Source, start: int, stop: int) -> list[Segment]:
    """Give a part as segments of which the first bytes are read and checked already.

    :raises ImageCorrupt: they are damaged.
    """
    block = _read_block(source, start, stop)
    return [block, (start + len(block), stop)]


def respond(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    source: Source,
    *,
    size: int,
    headers: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    """Answer a GET or HEAD from an open file.

    :param source: an unbuffered file at offset 0, closed with the response.
    :param size: the file's length in bytes.
    :param headers: fields of the whole 200 response.
    """
    return serve(environ, start_response, source, Representation.of(headers, size))


def serve(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    source: Source,
    selected: Representation,
    extra: Sequence[tuple[str, str]] = (),
) -> Iterable[bytes]:
    """Answer a GET or HEAD from an open file whose fields were read before.

    :param source: an unbuffered file at offset 0, closed with the response.
    :param extra: fields to add to whatever the answer is.
    :raises ImageCorrupt: the source found damage; it is closed, and nothing was sent.
    """
    try:
        if not _answer_condition(environ, start_response, selected, extra):
            if "HTTP_RANGE" in environ and environ["REQUEST_METHOD"] == "GET":
                return _serve_range(environ, start_response, source, selected, extra)
            return _serve_whole(environ, start_response, source, selected, extra)
        source.close()
        return []
    except BaseException:
        source.close()
        raise


class Begun(Protocol):
    """A body of which the first bytes can be read before anything is sent."""

    def begin(self) -> None:
        """Read the first bytes."""

    def __iter__(self) -> Iterator[bytes]: ...


def serve_stream(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    stream: Begun,
    close: Callable[[], None],
    selected: Representation,
    extra: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    """Answer a GET or HEAD from a stream whose length nobody knows yet; a Range is ignored.

    :param stream: the whole body; closes what ``close`` does.

    Source: RFC 9110, section 14.2 (a server may ignore the Range field).
    """
    is_get = environ["REQUEST_METHOD"] == "GET"
    try:
        if not _answer_condition(environ, start_response, selected, extra):
            if is_get:
                stream.begin()
            start_response("200 OK", [*selected.headers, *extra])
            if is_get:
                return stream
        close()
        return []
    except BaseException:
        close()
        raise


def _answer_condition(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    selected: Representation,
    extra: Sequence[tuple[str, str]],
) -> bool:
    """Answer 304 or 412 where a request's conditions want that. :return: whether they do.

    Source: RFC 9110, sections 13.2.2, 15.4.5 and 15.5.13.
    """
    status = evaluate(environ, selected.etag, selected.last_modified)
    if status == 304:
        kept = [pair for pair in selected.headers if pair[0].lower() in _NOT_MODIFIED_FIELDS]
        start_response("304 Not Modified", [*kept, *extra])
    elif status == 412:
        start_response("412 Precondition Failed", [*_NO_BODY, *extra])
    return status != 200


def _serve_whole(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    source: Source,
    selected: Representation,
    extra: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    size = selected.size
    is_empty = not size or environ["REQUEST_METHOD"] == "HEAD"
    begun = _begun(source, 0, size) if source.is_checked and not is_empty else None
    start_response("200 OK", [*selected.whole, *extra])
    if is_empty:
        source.close()
        return []
    if begun is not None:
        return Segments(source, begun)
    if source.data is not None:
        return source
    wrapper = _file_wrapper(environ, source)
    if wrapper is not None:
        return wrapper(source, BLOCK)
    return Segments(source, [(0, size)])


def _serve_range(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    source: Source,
    selected: Representation,
    extra: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    """RFC 9110, sections 14.2 and 15.3.7."""
    slices = wanted_slices(environ, selected)
    if slices is None:
        return _serve_whole(environ, start_response, source, selected, extra)
    if not slices:
        content_range_field = ("Content-Range", unsatisfied_range(selected.size))
        start_response("416 Range Not Satisfiable", [*_NO_BODY, content_range_field, *extra])
        source.close()
        return []
    if len(slices) > 1:
        kept = [pair for pair in selected.headers if pair[0].lower() not in _WHOLE_BODY_FIELDS]
        return _serve_multipart(start_response, source, slices, kept, selected.size, extra)
    ((start, stop),) = slices
    begun = _begun(source, start, stop) if source.is_checked else None
    start_response("206 Partial Content", [*part_headers(selected, start, stop), *extra])
    if begun is not None:
        return Segments(source, begun)
    wrapper = _file_wrapper(environ, source)
    if wrapper is not None and _honours_offset(environ.get("SERVER_SOFTWARE", "")):
        assert isinstance(source, io.RawIOBase)
        source.seek(start)
        return wrapper(source, BLOCK)
    return Segments(source, [(start, stop)])


def part_headers(selected: Representation, start: int, stop: int) -> list[tuple[str, str]]:
    """Give the fields of an answer with one part (RFC 9110, section 15.3.7.1)."""
    kept = [pair for pair in selected.headers if pair[0].lower() not in _WHOLE_BODY_FIELDS]
    part = ("Content-Range", content_range(start, stop, selected.size))
    return [*kept, part, ("Content-Length", str(stop - start))]


def wanted_slices(
    environ: dict[str, Any], selected: Representation
) -> list[tuple[int, int]] | None:
    """Give the parts that a request wants; ``None``: all of it.

    Source: RFC 9110, sections 13.1.5 and 14.2.
    """
    if_range = environ.get("HTTP_IF_RANGE")
    if if_range is not None and not range_applies(
        if_range, selected.etag, selected.last_modified, selected.date
    ):
        return None
    return parse_range(environ["HTTP_RANGE"], selected.size)


def _serve_multipart(
    start_response: Callable[..., Any],
    source: Source,
    slices: list[tuple[int, int]],
    kept: list[tuple[str, str]],
    size: int,
    extra: Sequence[tuple[str, str]],
) -> Iterable[bytes]:
    """RFC 9110, section 15.3.7.2: the part's type moves from the fields into each part."""
    content_type = fields.get(kept, "content-type") or "application/octet-stream"
    layout = multipart(slices, size, content_type, secrets.token_hex(16))
    headers = [pair for pair in kept if pair[0].lower() != "content-type"]
    headers += [("Content-Type", layout.content_type), ("Content-Length", str(layout.length))]
    segments: list[Segment] = []
    for head, start, stop in layout.parts:
        begun = _begun(source, start, stop) if source.is_checked and not segments else None
        segments += [head, *(begun or [(start, stop)])]
    start_response("206 Partial Content", [*headers, *extra])
    return Segments(source, [*segments, layout.tail])


def _file_wrapper(environ: dict[str, Any], source: Source) -> Callable[..., Iterable[bytes]] | None:
    """Give the server's file wrapper if the source is a file, but not where it would read on a
    hub's thread."""
    if not isinstance(source, io.RawIOBase):
        return None
    wrapper: Callable[..., Iterable[bytes]] | None = environ.get("wsgi.file_wrapper")
    return None if wrapper is None or concurrency.offloads() else wrapper


@functools.lru_cache(maxsize=16)
def _honours_offset(server: str) -> bool:
    """Say whether the server's file wrapper starts at the file's own offset.

    gunicorn 23 and 27 were seen to; gunicorn 20.1 and uWSGI 2.0.31 send from
    byte 0 under the 206, so a server that was not tried does not get a part.
    """
    match = re.match(r"gunicorn/(\d+)", server)
    return match is not None and int(match[1]) >= 23
