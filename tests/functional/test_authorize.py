"""Nobody gets what they may not see: the option authorize, and what is stored with it."""

import hashlib
import logging
import os
import re
import sys
import types

import pytest

from cachemw import CacheFilter, ImageCache
from cachemw.errors import ChecksumMismatch, ConfigError, ImageCorrupt
from tests.fakes import sha256
from tests.wsgi import begin, get

URL = "/images/cat"
BODY = bytes(range(256)) * 64
NEWER = BODY[::-1]
ALICE, BOB, EVE = "token-of-alice", "token-of-bob", "token-of-eve"


class Guarded:
    """An app that gives its image to some people, and knows conditional requests."""

    def __init__(self):
        self.body = BODY
        self.allowed = {ALICE, BOB}
        self.refusal = "403 Forbidden"
        self.conditional = True
        self.validator = True
        self.extra = []
        self.seen = []
        self.bodies = 0

    @property
    def tag(self):
        return f'"{hashlib.md5(self.body).hexdigest()}"'

    def __call__(self, environ, start_response):
        self.seen.append(
            {key: value for key, value in environ.items() if key.startswith("HTTP_")}
            | {"method": environ["REQUEST_METHOD"], "user": environ.get("REMOTE_USER")}
        )
        if environ.get("HTTP_X_AUTH_TOKEN") not in self.allowed:
            if isinstance(self.refusal, Exception):
                raise self.refusal
            start_response(self.refusal, [("Content-Type", "text/plain")])
            return [b"refused"]
        headers = [*self.extra, *([("ETag", self.tag)] if self.validator else [])]
        if self.conditional and environ.get("HTTP_IF_NONE_MATCH") == self.tag:
            start_response("304 Not Modified", headers)
            return []
        headers += [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(len(self.body))),
        ]
        start_response("200 OK", headers)
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        self.bodies += 1
        return [self.body[:1000], self.body[1000:]]


@pytest.fixture
def cache(driver_name, tmp_path):
    cache = ImageCache(dir=tmp_path / "cache", driver=driver_name, driver_fallback=False)
    yield cache
    cache.close()


@pytest.fixture
def origin():
    return Guarded()


@pytest.fixture(params=["http", "immutable", "revalidate"])
def freshness(request):
    return request.param


@pytest.fixture
def app(origin, cache, freshness):
    return CacheFilter(origin, cache=cache, authorize="app", freshness=freshness)


def ask(app, token, method="GET", **fields):
    return get(app, URL, method, **{"X-Auth-Token": token, **fields})


# authorize = app


def test_every_hit_is_put_to_the_app_under_the_clients_own_credentials(app, origin):
    origin.extra = [("Cache-Control", "max-age=600")]
    first = ask(app, ALICE)
    second = ask(app, BOB, Cookie="session=bob")

    assert first.cache == "fwd=uri-miss; stored"
    assert second.cache == "fwd=stale; fwd-status=304"
    assert first.body == second.body == BODY
    assert origin.bodies == 1
    assert [seen["HTTP_X_AUTH_TOKEN"] for seen in origin.seen] == [ALICE, BOB]
    assert "HTTP_COOKIE" not in origin.seen[0]
    assert origin.seen[1]["HTTP_COOKIE"] == "session=bob"
    assert origin.seen[1]["HTTP_IF_NONE_MATCH"] == origin.tag


@pytest.mark.parametrize(
    "refusal",
    [
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "410 Gone",
        "302 Found",
        "204 No Content",
        "206 Partial Content",
        "412 Precondition Failed",
        "429 Slow Down",
        "500 Oh",
        "503 Busy",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_whatever_else_the_app_says_is_the_clients_answer(app, origin, refusal, method):
    origin.extra = [("Cache-Control", "max-age=0, stale-if-error=9999")]
    ask(app, ALICE)
    origin.refusal = refusal

    refused = ask(app, EVE, method, Range="bytes=0-9", **{"If-None-Match": origin.tag})

    assert refused.status == int(refusal[:3])
    assert refused.body == b"refused"
    assert BODY[:5] not in refused.body
    assert ask(app, BOB).cache == "fwd=stale; fwd-status=304"
    assert origin.bodies == 1


def test_app_that_raises_fails_the_client_and_leaves_the_copy(app, origin):
    origin.extra = [("Cache-Control", "max-age=0, stale-if-error=9999")]
    ask(app, ALICE)
    origin.refusal = LookupError("no")

    with pytest.raises(LookupError):
        ask(app, EVE, **{"Cache-Control": "max-stale, stale-if-error=9999"})
    assert ask(app, BOB).body == BODY
    assert origin.bodies == 1


def test_200_with_the_same_validator_lets_the_copy_out(app, origin):
    """An app that knows no conditional requests is asked in the same way."""
    ask(app, ALICE)
    origin.conditional = False

    again = ask(app, BOB)

    assert again.cache == "fwd=stale; fwd-status=200"
    assert again.body == BODY


def test_200_with_another_validator_is_the_new_image(app, origin):
    ask(app, ALICE)
    origin.body = NEWER

    assert ask(app, BOB).body == NEWER
    assert ask(app, ALICE).cache == "fwd=stale; fwd-status=304"
    assert ask(app, ALICE).body == NEWER


def test_200_without_a_validator_never_lets_the_copy_out(app, origin):
    ask(app, ALICE)
    origin.validator = False
    origin.body = NEWER

    assert ask(app, BOB).body == NEWER


def test_304_about_something_else_does_not_let_the_copy_out(cache, freshness):
    """RFC 9111, section 4.3.3."""

    def origin(environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ:
            start_response("304 Not Modified", [("ETag", '"other"')])
            return []
        start_response("200 OK", [("Content-Type", "image/png"), ("ETag", '"own"')])
        return [BODY if not asked.append(1) and len(asked) == 1 else NEWER]

    asked = []
    app = CacheFilter(origin, cache=cache, authorize="app", freshness=freshness)
    ask(app, ALICE)

    assert ask(app, BOB).body == NEWER


def test_range_head_and_conditions_are_answered_from_the_copy_after_the_app_agreed(app, origin):
    ask(app, ALICE)
    part = ask(app, BOB, Range="bytes=5-9")
    head = ask(app, BOB, "HEAD")
    same = ask(app, BOB, **{"If-None-Match": origin.tag})
    other = ask(app, BOB, **{"If-None-Match": '"other"'})
    failed = ask(app, BOB, **{"If-Match": '"other"'})

    assert (part.status, part.body) == (206, BODY[5:10])
    assert (head.status, head.body, head.get("Content-Length")) == (200, b"", str(len(BODY)))
    assert (same.status, same.body) == (304, b"")
    assert (other.status, other.body) == (200, BODY)
    assert failed.status == 412
    assert origin.bodies == 1
    assert len(origin.seen) == 6
    for seen in origin.seen[1:]:
        assert seen["HTTP_IF_NONE_MATCH"] == origin.tag
        assert "HTTP_RANGE" not in seen
        assert "HTTP_IF_MATCH" not in seen


def test_client_that_knows_the_tag_learns_nothing_else(app, origin):
    """A 304 to somebody who may not see the image would say that it is still the same."""
    ask(app, ALICE)

    assert ask(app, EVE, **{"If-None-Match": origin.tag}).status == 403
    assert ask(app, EVE, "HEAD").status == 403
    assert ask(app, EVE, Range="bytes=0-0").status == 403


def test_request_that_must_not_reach_the_app_gets_a_504(app, origin):
    """RFC 9111, section 5.2.1.7: whether it may have the copy, only the app knows."""
    only = {"Cache-Control": "only-if-cached"}
    cold = ask(app, ALICE, **only)
    ask(app, ALICE)
    warm = ask(app, ALICE, **only)
    head = ask(app, ALICE, "HEAD", **only)

    assert cold.status == warm.status == head.status == 504
    assert head.body == b""
    assert len(origin.seen) == 1


def test_session_of_one_is_never_given_to_another(app, origin):
    origin.extra = [("Set-Cookie", f"session={ALICE}")]
    first = ask(app, ALICE)
    origin.extra = []
    second = ask(app, BOB)

    assert first.cache == "fwd=uri-miss; detail=set-cookie"
    assert first.get("Set-Cookie")
    assert second.get("Set-Cookie") is None
    assert origin.bodies == 2


PERSONAL = [
    ("Set-Cookie", f"session={ALICE}"),
    ("Set-Cookie2", f"session={ALICE}"),
    ("X-Auth-Token", ALICE),
    ("X-Storage-Token", ALICE),
    ("X-Subject-Token", ALICE),
    ("Authentication-Info", ALICE),
    ("X-Own", ALICE),
]


@pytest.mark.parametrize("field", PERSONAL)
def test_answer_that_hands_out_a_credential_is_not_stored(origin, cache, freshness, field):
    app = CacheFilter(
        origin, cache=cache, authorize="app", freshness=freshness, credential_headers="X-Own"
    )
    origin.extra = [field]

    assert "stored" not in ask(app, ALICE).cache
    assert not cache.get_cached_images()


@pytest.mark.parametrize("field", PERSONAL)
def test_credential_in_a_304_does_not_get_into_the_record(origin, cache, freshness, field):
    app = CacheFilter(
        origin, cache=cache, authorize="app", freshness=freshness, credential_headers="X-Own"
    )
    ask(app, ALICE)
    origin.extra = [field]
    ask(app, ALICE)
    origin.extra = []

    assert ALICE not in str(ask(app, BOB).headers)
    assert all(ALICE.encode() not in data for data in everything_stored(cache))


@pytest.mark.parametrize(
    "names", ["X-Auth-Token", "Accept, x-auth-token", "X_Auth_Token", "*", "X-Own", "Cookie"]
)
@pytest.mark.parametrize("when", ["first", "later"])
def test_answer_that_varies_by_a_credential_is_nobody_elses(origin, cache, freshness, names, when):
    app = CacheFilter(
        origin, cache=cache, authorize="app", freshness=freshness, credential_headers="X-Own"
    )
    fields = {"X-Own": ALICE, "Cookie": ALICE}
    if when == "later":
        ask(app, ALICE, **fields)
    origin.extra = [("Vary", names)]
    ask(app, ALICE, **fields)

    assert all(ALICE.encode() not in data for data in everything_stored(cache))


def everything_stored(cache):
    """The bytes of every file in the cache directory, of its attributes, and of the listing."""
    cache.driver.flush_hits()
    for directory, _, names in os.walk(cache.settings.dir):
        for name in names:
            path = os.path.join(directory, name)
            yield name.encode()
            with open(path, "rb") as file:
                yield file.read()
            for attribute in os.listxattr(path):
                yield os.getxattr(path, attribute)
    yield str(cache.get_cached_images()).encode()
    yield str(cache.driver.get_invalid_images()).encode()


SECRETS = {
    "Authorization": "Bearer secret-1",
    "Cookie": "session=secret-2",
    "X-Service-Token": "secret-3",
    "X-Storage-Token": "secret-4",
    "X-Amz-Security-Token": "secret-5",
    "X-Own": "secret-6",
    "REMOTE_USER": "secret-7",
}


def test_credentials_are_kept_nowhere(origin, cache, freshness, caplog):
    caplog.set_level(logging.DEBUG)
    origin.allowed = {"secret-0"}
    app = CacheFilter(
        origin, cache=cache, authorize="app", freshness=freshness, credential_headers="X-Own"
    )
    for method in ("GET", "GET", "HEAD", "DELETE", "GET"):
        ask(app, "secret-0", method, **SECRETS)
    origin.body = NEWER
    ask(app, "secret-0", **SECRETS)
    begun = begin(app, "/other", **{"X-Auth-Token": "secret-0"}, **SECRETS)
    begun.step()

    assert any(image["size"] for image in cache.get_cached_images())
    assert not [data for data in everything_stored(cache) if b"secret-" in data]
    assert "secret-" not in caplog.text
    begun.finish()


# authorize = python:


@pytest.fixture
def hook(monkeypatch):
    """A module with an ``authorize`` that does what its ``verdict`` says."""
    module = types.ModuleType("hook_of_test")
    module.verdict, module.calls = True, []

    def authorize(environ, image_id, entry):
        module.calls.append((environ.get("HTTP_X_AUTH_TOKEN"), image_id, entry.size))
        if isinstance(module.verdict, Exception):
            raise module.verdict
        return module.verdict

    module.authorize = authorize
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


HOOK = "python:hook_of_test:authorize"


@pytest.fixture
def hooked(origin, cache, hook):
    return CacheFilter(origin, cache=cache, authorize=HOOK, freshness="immutable")


def test_hook_that_agrees_lets_the_copy_out_without_the_app(hooked, origin, hook):
    ask(hooked, ALICE)
    hit = ask(hooked, EVE)

    assert (hit.cache, hit.body) == ("hit", BODY)
    assert len(origin.seen) == 1
    assert hook.calls == [(EVE, f"http://localhost{URL}", len(BODY))]


@pytest.mark.parametrize(
    "verdict", [False, None, 0, "", ValueError("broken"), ConfigError("x"), StopIteration()]
)
def test_hook_that_does_not_agree_leaves_the_answer_to_the_app(hooked, origin, hook, verdict):
    ask(hooked, ALICE)
    hook.verdict = verdict

    refused = ask(hooked, EVE)
    allowed = ask(hooked, BOB, Range="bytes=0-1")

    assert (refused.status, refused.body) == (403, b"refused")
    assert refused.cache == "fwd=bypass; detail=authorize"
    assert allowed.body == BODY
    hook.verdict = True
    assert ask(hooked, BOB).cache == "hit"
    assert origin.seen[2]["HTTP_RANGE"] == "bytes=0-1"


def test_hook_that_finds_the_copy_wrong_has_it_fetched_again(hooked, origin, hook, cache):
    ask(hooked, ALICE)
    origin.body = NEWER
    hook.verdict = ImageCorrupt("cat", "not what the database says")

    assert ask(hooked, BOB).cache == "fwd=uri-miss; stored"
    hook.verdict = True
    assert ask(hooked, BOB).body == NEWER
    hook.verdict = ImageCorrupt("cat", "again")
    assert ask(hooked, EVE).status == 403
    assert not cache.get_cached_images()


def test_request_that_the_hook_refuses_and_that_must_not_reach_the_app_gets_a_504(
    hooked, origin, hook
):
    """RFC 9111, section 5.2.1.7."""
    ask(hooked, ALICE)
    hook.verdict = False

    assert ask(hooked, ALICE, **{"Cache-Control": "only-if-cached"}).status == 504
    assert len(origin.seen) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_hook_is_asked_about_every_kind_of_request(hooked, hook, method):
    ask(hooked, ALICE)
    hook.verdict = False

    for fields in ({}, {"Range": "bytes=0-0"}, {"If-None-Match": "*"}, {"Cache-Control": "x"}):
        assert ask(hooked, EVE, method, **fields).status == 403
    assert len(hook.calls) == 4


@pytest.mark.parametrize("checksums", [[sha256(NEWER)], [sha256(BODY), "md5:" + "0" * 32]])
def test_answer_must_have_the_checksums_that_the_hook_knows(origin, hook, cache, checksums):
    hook.expected = lambda environ, image_id: checksums
    app = CacheFilter(origin, cache=cache, authorize=HOOK, freshness="immutable")
    cut = ask(app, ALICE)

    assert isinstance(cut.error, ChecksumMismatch)
    assert len(cut.body) < len(BODY)
    assert not cache.get_cached_images()


def test_right_checksum_of_the_hook_is_kept(origin, cache, hook):
    checksum = f"sha512:{hashlib.sha512(BODY).hexdigest()}"
    hook.expected = lambda environ, image_id: [checksum]
    app = CacheFilter(origin, cache=cache, authorize=HOOK, freshness="immutable")

    assert ask(app, ALICE).body == BODY
    assert cache.get_cached_images()[0]["checksum"] == checksum


BROKEN_MODULES = {
    "broken_syntax": "def authorize(:\n",
    "broken_import": "import no_such_module_at_all\n",
    "broken_run": "raise RuntimeError('no database')\n",
    "without_function": "",
    "not_callable": "authorize = 'yes'\n",
}


@pytest.mark.parametrize("name", [*BROKEN_MODULES, "not_there", ".", "not.there"])
def test_hook_that_cannot_be_used_stops_the_start(origin, cache, tmp_path, monkeypatch, name):
    if name in BROKEN_MODULES:
        (tmp_path / f"{name}.py").write_text(BROKEN_MODULES[name])
        monkeypatch.syspath_prepend(tmp_path)
    option = f"python:{name}:authorize"

    with pytest.raises(ConfigError) as raised:
        CacheFilter(origin, cache=cache, authorize=option)

    assert re.match(
        f"option 'authorize' has the value '{re.escape(option)}': expected a function",
        str(raised.value),
    )


# authorize = off


@pytest.mark.parametrize("field", sorted({*SECRETS, "X-Auth-Token"}))
@pytest.mark.parametrize("allowance", ["", "public", "s-maxage=60", "must-revalidate"])
def test_answer_to_someone_is_stored_only_if_it_says_that_it_may_be(
    origin, cache, field, allowance
):
    """RFC 9111, section 3.5."""
    origin.allowed = {None, "secret"}
    origin.extra = [("Cache-Control", f"max-age=60, {allowance}")]
    app = CacheFilter(origin, cache=cache, credential_headers="X-Own")

    reply = get(app, URL, **{field: "secret"})

    assert reply.body == BODY
    assert reply.cache == (
        "fwd=uri-miss; stored" if allowance else "fwd=uri-miss; detail=credentials"
    )
    assert len(cache.get_cached_images()) == bool(allowance)


@pytest.mark.parametrize("field", sorted({*SECRETS, "X-Auth-Token"}))
def test_answer_that_varies_by_someone_is_not_stored(origin, cache, field):
    origin.allowed = {None, "secret"}
    origin.extra = [("Cache-Control", "public, max-age=60"), ("Vary", field.replace("_", "-"))]
    app = CacheFilter(origin, cache=cache, credential_headers="X-Own")

    assert get(app, URL, **{field: "secret"}).cache == "fwd=uri-miss; detail=vary"
    assert get(app, URL).cache == "fwd=uri-miss; detail=vary"


def test_copy_that_was_stored_for_some_is_not_everybodys_when_authorize_is_taken_out(cache):
    """Or when another filter shares the directory."""

    def app(environ, start_response):
        if environ.get("HTTP_AUTHORIZATION") != "alice":
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"no"]
        headers = [("Content-Type", "image/png"), ("Cache-Control", "max-age=60"), ("ETag", '"1"')]
        start_response("200 OK", headers)
        return [b"secret"]

    guarded = CacheFilter(app, cache=cache, authorize="app")
    for _ in range(2):
        assert get(guarded, "/a", HTTP_AUTHORIZATION="alice").body == b"secret"
    free = CacheFilter(app, cache=cache, authorize="off")

    assert get(free, "/a").body == b"no"
    assert get(guarded, "/a", HTTP_AUTHORIZATION="alice").cache == "fwd=stale; fwd-status=200"
