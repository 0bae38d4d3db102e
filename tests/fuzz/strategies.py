"""Draws runs: requests and answers from the ordinary to the hostile."""

from __future__ import annotations

from hypothesis import strategies as st

from .plans import LAST_TAG, Kind, Length, Plan, Reading, Run, Step

#: Text as WSGI has it: bytes as Latin-1, whatever they are.
_latin = st.text(st.characters(max_codepoint=255), max_size=12)
_field_value = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)
_seconds = st.sampled_from((0, 1, 10, 60, 3600, 10**6, 2**31, 10**20))

_RANGES = (
    "bytes=0-",
    "bytes=0-0",
    "bytes=-1",
    "bytes=-0",
    "bytes=-99999999999999999999999",
    "bytes=5-3",
    "bytes=50-60",
    "bytes=99-",
    "bytes=100-",
    "bytes=" + "9" * 5000 + "-",
    "bytes=0-1,5-6",
    "bytes=0-1,1-2,90-200",
    "bytes= 0-1 ,, -1",
    "bytes=" + ",".join(f"{start}-{start}" for start in range(0, 4000, 2)),
    "bytes=" + "0-," * 20_000,
    "bytes",
    "bytes=",
    "bytes=-",
    "octets=0-1",
    "bytes=\u0663-\u0664".encode().decode("latin-1"),
    "BYTES=0-3",
    "bytes=0-3\r\nX-Injected: 1",
)
_TAGS = ('"constant"', 'W/"constant"', "*", '"', 'bro"ken', '"a", "constant"', "", '"' * 9000)
_DATES = (
    "Thu, 01 Jan 1970 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 GMT",
    "Sunday, 06-Nov-94 08:49:37 GMT",
    "Sun Nov  6 08:49:37 1994",
    "Mon, 99 Foo 20x0",
    "0",
    "-1",
    "",
)
_CONTROLS = (
    "no-cache",
    "no-store",
    "private",
    "public",
    "must-revalidate",
    "max-age=0",
    "max-age=10",
    "max-age=3600",
    "s-maxage=0",
    "s-maxage=60",
    "x-unknown",
    "x-unknown=1",
)
_RAW_CONTROLS = (
    "max-age",
    "max-age=",
    "max-age=-1",
    "max-age=1e9",
    "max-age='60'",
    'max-age="60"',
    "max-age=60, max-age=0",
    "max-age=60;public",
    'no-cache="x, max-age=60',
    'x="no-store", max-age=60',
    '=,=;,\\,"',
    "max-age=99999999999999999999999999999999999999",
    "max-age=" + "9" * 6000,
    "," * 10_000,
    '"' * 10_000,
)
_GARBAGE_FIELDS = (
    ("Age", "-1"),
    ("Age", "x"),
    ("Age", "5, 7"),
    ("Age", "99999999999999999999999"),
    ("Date", "yesterday"),
    ("Expires", "0"),
    ("Expires", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ("Last-Modified", "Mon, 99 Foo"),
    ("ETag", '"second"'),
    ("Content-MD5", "garbage"),
    ("Repr-Digest", "sha-256=:AAAA:, :::"),
    ("Docker-Content-Digest", "sha256:xyz"),
    ("Content-Encoding", "gzip"),
    ("Content-Range", "bytes 0-1/2"),
    ("Cache-Status", "other; hit"),
    ("Connection", "X-Hop, close"),
    ("X-Hop", "1"),
    ("Keep-Alive", "timeout=5"),
    ("Transfer-Encoding", "chunked"),
    ("Pragma", "no-cache"),
    ("Warning", "110 - stale"),
    ("X-\xe4", "\xff"),
    ("X-Large", "x" * 65_536),
)
_VARY = ("Accept-Encoding", "accept-language", "X-Any", "*", "Cookie", "Authorization", "Host")

_key = st.sampled_from(
    ("HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE", "HTTP_X_ANY", "HTTP_AUTHORIZATION")
)
_person = st.sampled_from(("one", "two"))

_request_field = st.one_of(
    st.tuples(st.just("HTTP_RANGE"), st.sampled_from(_RANGES) | _latin),
    st.tuples(st.just("HTTP_IF_RANGE"), st.sampled_from(_TAGS + _DATES) | _latin),
    st.tuples(
        st.sampled_from(("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")), st.sampled_from(_TAGS) | _latin
    ),
    st.tuples(
        st.sampled_from(("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_UNMODIFIED_SINCE")),
        st.sampled_from(_DATES) | _latin,
    ),
    st.tuples(st.just("HTTP_CACHE_CONTROL"), st.sampled_from(_RAW_CONTROLS) | _latin),
    st.tuples(st.just("HTTP_PRAGMA"), st.sampled_from(("no-cache", "x")) | _latin),
    st.tuples(
        st.sampled_from(("HTTP_ACCEPT_ENCODING", "HTTP_ACCEPT_LANGUAGE", "HTTP_X_ANY")),
        st.sampled_from(("a", "b", "", "a, b")),
    ),
    st.tuples(
        st.sampled_from(("HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_X_AUTH_TOKEN", "REMOTE_USER")),
        _person,
    ),
    st.tuples(
        st.sampled_from(
            (
                "HTTP_X_FORWARDED_HOST",
                "HTTP_X_FORWARDED_PROTO",
                "HTTP_X_ORIGINAL_URL",
                "HTTP_X_HTTP_METHOD_OVERRIDE",
                "HTTP_TRANSFER_ENCODING",
                "CONTENT_LENGTH",
                "CONTENT_TYPE",
                "HTTP_EXPECT",
            )
        ),
        st.sampled_from(
            ("evil.test", "https", "/other", "DELETE", "chunked", "5", "-1", "x\r\ny: z")
        ),
    ),
    st.tuples(st.just("HTTP_X_LARGE"), st.just("\xff" * 65_536)),
)

_mutations = st.just(()) | st.lists(st.tuples(_key, st.none() | st.just("a")), max_size=2).map(
    tuple
)

_plain_control = st.sampled_from(
    (
        ("max-age=3600",),
        ("max-age=3600",),
        ("public", "max-age=3600"),
        ("public",),
        ("private", "max-age=3600"),
        ("no-store", "public", "max-age=3600"),
    )
)
_plain_plan = st.builds(
    Plan,
    kind=st.sampled_from((Kind.LIST, Kind.ITERATOR, Kind.LATE, Kind.FILE)),
    control=_plain_control,
    expires_in=st.sampled_from((None, 100)),
    length=st.sampled_from(
        (Length.RIGHT,) * 4 + (Length.NONE, Length.NONE, Length.SHORT, Length.LONG)
    ),
    tag=st.sampled_from((None, "strong")),
    md5=st.sampled_from((None,) * 4 + ("right", "wrong")),
    chunks=st.sampled_from((1, 3)),
    size=st.sampled_from((100, 100, 1, 0, 700_000)),
    vary=st.sampled_from(((), ("Accept-Encoding",))),
    new_version=st.booleans(),
    mutations=_mutations,
)
_any_plan = st.builds(
    Plan,
    kind=st.sampled_from(Kind),
    status=st.sampled_from(
        ("200 OK",) * 6
        + ("200", "203 Other", "204 No Content", "206 Partial", "302 Found", "404 No", "500 Oh")
    ),
    content_type=st.sampled_from(
        ("image/png", "application/octet-stream", "text/html", "IMAGE/X ; a=b", "", None)
    ),
    control=st.lists(st.sampled_from(_CONTROLS), max_size=3, unique=True).map(tuple),
    raw_control=st.none() | st.none() | st.sampled_from(_RAW_CONTROLS) | _field_value,
    fields=st.lists(st.sampled_from(_GARBAGE_FIELDS), max_size=2).map(tuple),
    expires_in=st.none() | st.sampled_from((-10, 0, 60, 10**6)),
    dated=st.none() | st.sampled_from((-100, 0, 100)),
    modified=st.none() | st.sampled_from((-(10**6), -1, 100)),
    length=st.sampled_from((Length.RIGHT,) * 3 + tuple(Length)),
    size=st.sampled_from((0, 1, 100, 100, 5000)),
    chunks=st.sampled_from((1, 2, 7)),
    tag=st.sampled_from((None, "strong", "weak", "constant", "garbage")),
    md5=st.sampled_from((None, None, "right", "wrong")),
    vary=st.lists(st.sampled_from(_VARY), max_size=2).map(tuple),
    fails=st.none() | st.none() | st.integers(0, 7),
    new_version=st.booleans(),
    mutations=_mutations,
)
_request_control = st.sampled_from(
    (
        "no-cache",
        "no-store",
        "max-age=0",
        "max-age=10",
        "min-fresh=5",
        "max-stale=9",
        "only-if-cached",
    )
)

#: Other ways to write the same, or the same text with its borders moved.
TWISTS = (
    "raw",
    "request-uri",
    "absolute",
    "raw-lie",
    "script",
    "host-path",
    "host-query",
    "path-query",
    "host-case",
    "no-host",
    "absolute-path",
    "https",
)

_step = st.builds(
    Step,
    method=st.sampled_from(
        ("GET",) * 12
        + ("HEAD", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "get", "PURGE", "TRACE", "")
    ),
    place=st.integers(0, 1),
    twist=st.just("") | st.just("") | st.sampled_from(TWISTS),
    control=st.just(())
    | st.lists(
        _request_control,
        max_size=2,
        unique=True,
    ).map(tuple),
    fields=st.just(()) | st.lists(_request_field, max_size=3).map(tuple),
    body=st.just(b"") | st.just(b"a body"),
    advance=st.sampled_from((0, 0, 0, 1, 30, 4000, -50)),
    wrapper=st.booleans(),
    reading=st.sampled_from((Reading.WHOLE,) * 6 + tuple(Reading)),
    plan=st.one_of(_plain_plan, _any_plan),
)

_path = st.one_of(
    st.sampled_from(
        ("a", "a", "b", "a/b", "a?q", "..", "", "/", ".", "%2F", "a%3Fq", "\xff\x00", "\xc3\xa4")
    ),
    st.sampled_from(
        ("n" * 1900, "n" * 10_000, "cache.db", "a\r\nb", "a b", "a;b", "//evil.test/x")
    ),
    _latin,
)

_hostile = st.builds(
    Run,
    targets=st.tuples(
        st.tuples(_path, st.sampled_from(("", "", "q", "q=1&r", "\xff"))),
        st.tuples(_path, st.sampled_from(("", "q"))),
    ),
    steps=st.lists(_step, min_size=2, max_size=6).map(tuple),
)

_selecting = st.tuples(
    st.sampled_from(("HTTP_ACCEPT_ENCODING", "HTTP_AUTHORIZATION", "HTTP_X_ANY")),
    st.sampled_from(("a", "b")),
)
_conditional = st.tuples(
    st.sampled_from(("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH", "HTTP_IF_RANGE")),
    st.sampled_from((LAST_TAG, LAST_TAG, '"constant"')),
)
_GOOD_RANGES = ("bytes=0-0", "bytes=5-20", "bytes=-1", "bytes=0-1,5-6", "bytes=99-", "bytes=100-")

#: Begins with what will be stored, mostly.
_first = st.builds(
    Step,
    fields=st.lists(_selecting, max_size=1).map(tuple),
    plan=st.builds(
        Plan,
        kind=st.sampled_from((Kind.LIST, Kind.ITERATOR, Kind.LATE)),
        control=st.sampled_from((("public", "max-age=3600"), ("max-age=3600",))),
        length=st.sampled_from((Length.RIGHT, Length.NONE, Length.SHORT, Length.LONG)),
        tag=st.sampled_from((None, "strong", "weak")),
        md5=st.sampled_from((None, None, "right", "wrong")),
        chunks=st.sampled_from((1, 3)),
        size=st.sampled_from((100, 100, 100, 1, 0, 700_000)),
        vary=st.sampled_from(((), (), ("Accept-Encoding",))),
        mutations=_mutations,
    ),
)
_next = st.builds(
    Step,
    method=st.sampled_from(("GET",) * 6 + ("HEAD", "PUT", "DELETE")),
    control=st.just(()) | st.just(()) | st.tuples(_request_control),
    fields=st.just(())
    | st.lists(_selecting, max_size=2).map(tuple)
    | st.tuples(st.tuples(st.just("HTTP_RANGE"), st.sampled_from(_GOOD_RANGES)))
    | st.tuples(_conditional),
    advance=st.sampled_from((0, 0, 0, 0, 3000, 30_000, -50)),
    wrapper=st.booleans(),
    reading=st.sampled_from((Reading.WHOLE,) * 4 + (Reading.PART, Reading.LATER)),
    plan=st.one_of(_plain_plan, _plain_plan, _plain_plan, _any_plan),
)
#: Ordinary requests to one target, so that what is stored meets who asks, and when.
_busy = st.builds(
    Run,
    targets=st.just((("a", ""), ("a", ""))),
    steps=st.tuples(_first, st.lists(_next, min_size=1, max_size=5)).map(
        lambda steps: (steps[0], *steps[1])
    ),
)

RUNS = st.one_of(_hostile, _busy)
