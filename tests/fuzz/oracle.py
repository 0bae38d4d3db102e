"""Carries a run out, and says what is wrong with an answer.

An answer is right if it is what the app just said, or bytes that the app gave
for the same target before and that a cache may still give to this request.
The rules are written here a second time, and simpler, from RFC 9110 and 9111:
where a field is beyond the model, it lets everything pass but wrong bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import re
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from cachemw import CacheFilter
from cachemw.errors import FillError
from cachemw.web import fields

from .origin import CREDENTIALS, FAILED, AppError, Made, Origin
from .plans import LAST_TAG, Kind, Reading, Run, Step

#: The route of the filter that takes ids from the path.
ROUTE = "/images/(?P<image_id>(?s:.+))"

_numbers = itertools.count()

#: Kinds of answers that never come to a right end.
_BROKEN = (Kind.RESTART_EARLY, Kind.RESTART_LATE, Kind.RAISE, Kind.TWICE, Kind.NEVER)

#: Fields behind which the model does not see how fresh an answer is.
_CONFUSING = {"date", "expires", "last-modified", "age", "pragma"}

#: Seconds that background work may take to close what it has.
PATIENCE = 10


class Wrong(AssertionError):
    """The filter did what it must not."""


class Clock:
    """Takes the place of the module ``time`` in the web package."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class World:
    """A filter in front of a generated app; it serves many runs, each in a place of its own.

    :param directory: of the cache.
    :param by_id: take ids from the path, and never ask twice; else by target and RFC 9111.
    """

    def __init__(self, directory: str, by_id: bool, driver: str = "sqlite") -> None:
        self.by_id = by_id
        self.clock = Clock()
        self.origin = Origin(self.clock.time, self.key_of)
        options = {"routes": ROUTE, "freshness": "immutable"} if by_id else {}
        self.filter = CacheFilter(
            self.origin,
            dir=directory,
            driver=driver,
            durability="none",
            max_size="32MiB",
            min_free=0,
            **options,
        )

    def close(self) -> None:
        self.filter.cache.close()

    @contextlib.contextmanager
    def _time_stands(self) -> Iterator[None]:
        """Have the web package see our clock."""
        modules = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith("cachemw.web.") and getattr(module, "time", None) is time
        ]
        for module in modules:
            module.time = self.clock  # type: ignore[attr-defined]
        try:
            yield
        finally:
            for module in modules:
                module.time = time  # type: ignore[attr-defined]

    def key_of(self, environ: dict[str, Any]) -> tuple[str, ...]:
        """What a request is for, in parts that cannot be taken for each other."""
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        query = environ.get("QUERY_STRING", "")
        if self.by_id and environ.get("PATH_INFO", "").startswith("/images/"):
            return (environ["PATH_INFO"], query)
        scheme = environ["wsgi.url_scheme"]
        host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
        port = {"http": ":80", "https": ":443"}[scheme]
        return (scheme, host.lower().removesuffix(port), path, query)

    def carry_out(self, run: Run) -> None:
        """Do all steps, and look at every answer.

        :raises Wrong: one is wrong.
        """
        origin = self.origin
        origin.made, origin.errors = [], []
        origin.versions, origin.generations = {}, {}
        number, later, tag = next(_numbers), [], '"none"'
        with self._time_stands():
            for place, step in enumerate(run.steps, 1):
                if place == len(run.steps):
                    while later:
                        later.pop(0).end()
                self.clock.now += step.advance
                exchange = Exchange(self, step, environ_of(run, step, number, tag))
                exchange.begin()
                tag = exchange.field("etag") or tag
                if step.reading is Reading.LATER and exchange.body is not None:
                    later.append(exchange)
                else:
                    exchange.end()
            for exchange in later:  # the last step's own
                exchange.end()
        self._all_closed()

    def _all_closed(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while any(made.opened != made.closed for made in self.origin.made):
            over = [made for made in self.origin.made if made.closed > made.opened]
            if over or time.monotonic() > deadline:
                raise Wrong("a body of the app was not closed, or twice")
            time.sleep(0.01)


def environ_of(run: Run, step: Step, number: int, tag: str) -> dict[str, Any]:
    """Build what a server would hand over for a step.

    :param tag: the ETag that the client saw last.
    """
    tail, query = run.targets[step.place]
    path = f"/images/r{number}/{tail}"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": step.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "h.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "h.test",
        "REMOTE_ADDR": "192.0.2.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(step.body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    # As a server has it whose clients quote no more than they must.
    raw = quote(path, safe="/!$&'()*+,;=:@", encoding="latin-1") + (f"?{query}" if query else "")
    _twist(environ, step.twist, raw, number)
    for key, value in step.fields:
        environ[key] = tag if value == LAST_TAG else value
    if step.control:
        environ["HTTP_CACHE_CONTROL"] = ", ".join(step.control)
    if step.body:
        environ["CONTENT_LENGTH"] = str(len(step.body))
    if step.wrapper:
        environ["wsgi.file_wrapper"] = FileWrapper
    return environ


def _twist(environ: dict[str, Any], twist: str, raw: str, number: int) -> None:
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if twist == "raw":
        environ["RAW_URI"] = raw
    elif twist == "request-uri":
        environ["REQUEST_URI"] = raw
    elif twist == "absolute":
        environ["RAW_URI"] = f"http://h.test{raw}"
    elif twist == "raw-lie":
        environ["RAW_URI"] = f"/images/r{number}/a"
    elif twist == "script":
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = "/images", path.removeprefix("/images")
    elif twist == "host-path":
        environ["HTTP_HOST"] = "h.test/images"
        environ["PATH_INFO"] = path.removeprefix("/images")
    elif twist == "host-query":
        environ["HTTP_HOST"] = f"h.test/images/r{number}/a?"
        environ["PATH_INFO"] = ""
    elif twist == "path-query":
        environ["PATH_INFO"], environ["QUERY_STRING"] = f"{path}?{query}", ""
    elif twist == "host-case":
        environ["HTTP_HOST"] = "H.TEST:80"
    elif twist == "no-host":
        del environ["HTTP_HOST"]
    elif twist == "absolute-path":
        environ["PATH_INFO"] = f"http://h.test{path}"
    elif twist == "https":
        environ["wsgi.url_scheme"] = "https"


class FileWrapper:
    """A server's file wrapper."""

    def __init__(self, filelike: Any, block_size: int = 8192) -> None:
        self._filelike, self._block_size = filelike, block_size
        self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self._filelike.read(self._block_size), b"")


@dataclasses.dataclass
class Exchange:
    """One request and what came of it: the server's part of PEP 3333."""

    world: World
    step: Step
    environ: dict[str, Any]
    status: str = ""
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    received: bytes = b""
    error: BaseException | None = None
    body: Any = None
    asked: list[Made] = dataclasses.field(default_factory=list)
    _chunks: Any = None

    def begin(self) -> None:
        """Send the request; take the first chunk if the client wants any."""
        origin = self.world.origin
        origin.plan = self.step.plan
        self.client_environ = dict(self.environ)
        self.key = self.world.key_of(self.environ)
        self.generation = origin.generations.get(self.key, 0)
        self.time = self.world.clock.now
        before = len(origin.made)
        with self._failures():
            self.body = self.world.filter(self.environ, self._start_response)
            if self.step.reading is not Reading.NOTHING:
                self._chunks = iter(self.body)
                self._take(1)
        mine = threading.get_ident()
        self.asked = [made for made in origin.made[before:] if made.thread == mine]
        if self.step.method not in ("GET", "HEAD", "OPTIONS", "TRACE") and self.status[:1] in (
            "2",
            "3",
        ):
            origin.generations[self.key] = self.generation + 1

    def end(self) -> None:
        """Read on if the client does, close, and judge."""
        with self._failures():
            if self.step.reading in (Reading.WHOLE, Reading.LATER) and self._chunks is not None:
                self._take(sys.maxsize)
        close = getattr(self.body, "close", None)
        if close is not None:
            with self._failures():
                close()
        try:
            self._judge()
        except Wrong as exc:
            exc.add_note(f"{self.status} {self.headers!r:.2000}\n{self.received!r:.200}")
            exc.add_note(f"{self.step}\nkey {self.key!r:.300} error {self.error!r}")
            for made in self.world.origin.made:
                exc.add_note(f"app: {made.key!r:.300} {made.status} {made.headers!r:.1000}")
            raise

    def _take(self, most: int) -> None:
        for chunk in itertools.islice(self._chunks, most):
            if not isinstance(chunk, bytes):
                raise Wrong(f"a chunk is {type(chunk)}")
            self.received += chunk

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Keep what the filter raises: the server would cut the connection."""
        try:
            yield
        except Wrong:
            raise
        except Exception as exc:
            self.error = self.error or exc
            self._chunks = None

    def _start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Any:
        if exc_info is not None and self.received:
            raise exc_info[1]
        if self.status and exc_info is None:
            if self.step.plan.kind is not Kind.TWICE:
                raise Wrong("start_response was called twice")
            raise AssertionError("start_response was called twice")
        self.status, self.headers = status, list(headers)
        return self._write

    def _write(self, data: bytes) -> None:
        self.received += data

    # Judging

    def _judge(self) -> None:
        if isinstance(self.error, AssertionError):
            if self.step.plan.kind not in (Kind.TWICE, Kind.NEVER):
                raise Wrong("an assertion of ours") from self.error
            return
        if self.error is not None and not isinstance(self.error, AppError | FillError):
            raise Wrong("an exception that is not the app's") from self.error
        if isinstance(self.error, AppError) and self.error not in self.world.origin.errors:
            raise Wrong("an exception of another run") from self.error
        if not self.status:
            started = self.step.reading is not Reading.NOTHING
            if self.error is None and started and self.step.plan.kind is not Kind.NEVER:
                raise Wrong("no start_response, and no exception")
            return
        self._judge_fields()
        if self.asked and self._is_from(self.asked[-1]):
            self._judge_passed(self.asked[-1])
        else:
            self._judge_cached()

    @property
    def _is_whole(self) -> bool:
        """Whether the client read to the end, and nothing was cut."""
        reads = self.step.reading in (Reading.WHOLE, Reading.LATER)
        return reads and self._chunks is not None and self.error is None

    def field(self, name: str) -> str | None:
        return fields.get(self.headers, name)

    def _judge_fields(self) -> None:
        for name, value in self.headers:
            if not (isinstance(name, str) and isinstance(value, str)):
                raise Wrong(f"field {name!r} is not text")
            if re.search("[\r\n\0]", name + value):
                raise Wrong(f"field {name!r} has a line end")

    def _is_from(self, made: Made) -> bool:
        own = [pair for pair in self.headers if not pair[1].startswith("cachemw;")]
        if made.plan.kind is Kind.RESTART_LATE and (self.status, own) == FAILED:
            return not self.received
        return self.status == made.status and own == made.headers

    def _judge_passed(self, made: Made) -> None:
        """The app's answer to this request: nothing is changed."""
        expected = b"" if self.step.method == "HEAD" and not made.whole else made.whole
        if not expected.startswith(self.received):
            raise Wrong("not the app's bytes")
        if isinstance(self.error, FillError):
            promised = self.field("content-length") or ""
            limit = int(promised) if promised.isdigit() else len(expected)
            if not made.lies:
                raise Wrong("cut for nothing") from self.error
            if len(self.received) >= limit > 0:
                raise Wrong("cut after its end")
        elif isinstance(self.error, AppError):
            if self.error is not made.error:
                raise Wrong("another answer's exception") from self.error
        elif self._is_whole:
            if self.received != expected:
                raise Wrong("the app's bytes, but not all")
            if made.error is not None and self.status != FAILED[0]:
                raise Wrong("the app failed, and nobody was told")
            if "stored" in (self.field("cache-status") or "") and made.lies and expected:
                raise Wrong("a whole image that the checksum or length speaks against")

    def _judge_cached(self) -> None:
        """An answer of the filter's own: one earlier answer of the app must explain it."""
        if self.step.method not in ("GET", "HEAD"):
            raise Wrong("not the app's answer")
        code = int(self.status[:3])
        if code == 504 and "only-if-cached" in self.step.control and not self.asked:
            return
        if code == 304 and self.asked and self._is_own_304(self.asked[-1]):
            return
        reasons = []
        for made in self.world.origin.made:
            reason = self._why_not(made) or self._mismatch(made, code)
            if reason is None:
                return
            reasons.append(reason)
        raise Wrong(f"nothing that the app said allows this: {reasons}")

    def _is_own_304(self, made: Made) -> bool:
        """Whether the app has just sent this client what it has already (RFC 9110, 13.1.2)."""
        tag = (made.field("etag") or "").removeprefix("W/")
        known = self.client_environ.get("HTTP_IF_NONE_MATCH", "")
        return made.code == 200 and not self.received and bool(tag) and tag in known

    def _mismatch(self, made: Made, code: int) -> str | None:
        """Why the bytes and fields are not those of an answer that may be used."""
        whole, request = made.whole, self.client_environ
        tag = made.field("etag")
        if code not in (412, 416) and tag is not None and self.field("etag") != tag:
            return "another etag"
        if code == 200:
            expected = whole
            if tag and request.get("HTTP_IF_NONE_MATCH") == tag and tag != 'bro"ken':
                return "the client has it"
            promised = self.field("content-length")
            if promised not in (None, str(len(whole)), made.field("content-length")):
                return "another length"
        elif code == 206:
            return self._part_mismatch(whole)
        elif code == 304:
            known = request.get("HTTP_IF_NONE_MATCH")
            own = (tag or self.field("etag") or "").removeprefix("W/")
            if known is None:
                return None if "HTTP_IF_MODIFIED_SINCE" in request else "not conditional"
            return None if known.strip() == "*" or (own and own in known) else "another tag"
        elif code == 412:
            asks = "HTTP_IF_MATCH" in request or "HTTP_IF_UNMODIFIED_SINCE" in request
            return None if asks else "not conditional"
        elif code == 416:
            right = "HTTP_RANGE" in request
            right = right and self.field("content-range") == f"bytes */{len(whole)}"
            return None if right else "416 for nothing"
        else:
            return f"a status of our own: {code}"
        return self._body_mismatch(expected)

    def _body_mismatch(self, expected: bytes) -> str | None:
        if self.step.method == "HEAD":
            return "a body" if self.received else None
        if not expected.startswith(self.received):
            return "other bytes"
        return "not all bytes" if self._is_whole and self.received != expected else None

    def _part_mismatch(self, whole: bytes) -> str | None:
        if "HTTP_RANGE" not in self.client_environ:
            return "a part unasked"
        kind = self.field("content-type") or ""
        found = re.fullmatch(r"multipart/byteranges; boundary=(\w+)", kind)
        if found is None:
            part = _slice(self.field("content-range") or "", whole)
            if part is None or self.field("content-length") != str(len(part)):
                return "a part that is none"
            return self._body_mismatch(part)
        if self.field("content-length") != str(len(self.received)):
            return None if self.step.reading in (Reading.PART, Reading.NOTHING) else "its length"
        separator = f"--{found[1]}".encode()
        first, *parts, last = self.received.split(separator)
        if first or last.strip(b"\r\n") != b"--" or not parts:
            return "a multipart that is none"
        for text in parts:
            head, _, content = text.removesuffix(b"\r\n").partition(b"\r\n\r\n")
            where = re.search(rb"Content-Range: (.*)", head)
            if where is None or _slice(where[1].decode().strip(), whole) != content:
                return "other parts"
        return None

    def _why_not(self, made: Made) -> str | None:
        """Why a cache must not use an answer for this request."""
        plan, request = made.plan, made.request
        if made.key != self.key:
            return "another target"
        if made.code != 200 or request["REQUEST_METHOD"] != "GET":
            return "not a 200 to a GET"
        # Who follows a fill under way learns of its end with the one who began it.
        # A 304 has no body to be wrong.
        has_body = self._is_whole and not self.status.startswith("304")
        if has_body and (plan.kind in _BROKEN or made.error is not None):
            return "it failed"
        if has_body and made.lies:
            return "it lied"
        if not re.match("image/|application/octet-stream", (plan.content_type or "").lower()):
            return "not an image"
        return (
            self._why_not_stored(made)
            or self._why_another_variant(made)
            or (None if self.asked else self._why_not_unasked(made))
        )

    def _why_not_stored(self, made: Made) -> str | None:
        plan, request = made.plan, made.request
        if {"no-store", "private"} & set(plan.control):
            return "no-store or private"
        if "no-store" in request.get("HTTP_CACHE_CONTROL", "").split(", "):
            return "no-store in the request"
        shareable = {"public", "must-revalidate", "s-maxage=0", "s-maxage=60"} & set(plan.control)
        if any(request.get(key) for key in CREDENTIALS) and not shareable and not plan.raw_control:
            return "made for one person"
        return None

    def _why_another_variant(self, made: Made) -> str | None:
        for name in made.plan.vary:
            key = f"HTTP_{name.upper().replace('-', '_')}"
            if name == "*" or key in CREDENTIALS:
                return f"varies by {name}"
            if made.request.get(key) != self.client_environ.get(key):
                return f"another {name}"
        return None

    def _why_not_unasked(self, made: Made) -> str | None:
        if made.generation < self.generation:
            return "changed since"
        if self.world.by_id:
            return None
        control = self.client_environ.get("HTTP_CACHE_CONTROL")
        if {"no-cache", "max-age=0"} & set(self.step.control):
            return "the client wants the app asked"
        if control is None and self.client_environ.get("HTTP_PRAGMA") == "no-cache":
            return "the client wants the app asked"
        news = [other for other in self.world.origin.made if _freshens(other, made)]
        lifetimes = [_lifetime(answer) for answer in (made, *news)]
        if None in lifetimes:
            return None
        least = min(_age(answer, self.time) for answer in (made, *news))
        overdue = least - max(lifetimes)
        return None if overdue < 0 or self._may_be_stale(made, overdue) else "stale"

    def _may_be_stale(self, made: Made, overdue: float) -> bool:
        """Whether the client takes what is stale, and the app lets it (RFC 9111, 5.2.1.2)."""
        if _REVALIDATED & set(made.plan.control):
            return False
        return "max-stale=9" in self.step.control and overdue <= 9


def _slice(content_range: str, whole: bytes) -> bytes | None:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", content_range)
    if found is None:
        return None
    first, last, size = map(int, found.groups())
    return whole[first : last + 1] if first <= last < size == len(whole) else None


def _freshens(news: Made, made: Made) -> bool:
    """Whether an answer says that an earlier one is still right (RFC 9111, section 4.3)."""
    says = news.code == 304 or (news.code == 200 and news.request["REQUEST_METHOD"] == "HEAD")
    tag = made.field("etag")
    return says and news.key == made.key and tag is not None and news.field("etag") == tag


#: Directives of an answer that must not be used stale.
_REVALIDATED = {"must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=0", "s-maxage=60"}


def _lifetime(made: Made) -> float | None:
    """How long an answer stays fresh; ``None`` where the model does not know."""
    plan = made.plan
    if plan.raw_control is not None or _CONFUSING & {name.lower() for name, _ in plan.fields}:
        return None
    if "no-cache" in plan.control:
        return 0
    for name in ("s-maxage=", "max-age="):
        for directive in plan.control:
            if directive.startswith(name):
                return int(directive.removeprefix(name))
    dated = plan.dated or 0
    if plan.expires_in is not None:
        return max(0, plan.expires_in - dated)
    if plan.modified is not None:
        return min(86400, 0.1 * max(0, dated - plan.modified))
    return 0


def _age(made: Made, now: float) -> float:
    """The least age that an answer can have (RFC 9111, section 4.2.3)."""
    return max(0.0, now - made.time) + max(0, -(made.plan.dated or 0))
