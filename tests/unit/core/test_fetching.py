"""Request fields for prefetching, and what answers mean."""

import pytest

from cachemw.core import outcomes
from cachemw.core.fetching import add_fields, call, read_fields, without
from cachemw.core.outcomes import of_answer, of_error
from cachemw.errors import ChecksumMismatch, ConfigError, LengthMismatch, UpstreamFailed


def test_fields_are_read_from_a_file_each_time(tmp_path):
    path = tmp_path / "fields"
    path.write_text("# for the app\nX-Auth-Token: one\n\nAccept:image/png  \n")
    source = f"file:{path}"
    assert read_fields(source) == [("X-Auth-Token", "one"), ("Accept", "image/png")]

    path.write_text("X-Auth-Token: two")
    assert read_fields(source) == [("X-Auth-Token", "two")]


def test_fields_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("TOKEN", "Authorization: Bearer abcd")
    assert read_fields("env:TOKEN") == [("Authorization", "Bearer abcd")]
    assert read_fields("") == []


@pytest.mark.parametrize(
    "text", ["s3cret", "A B: s3cret", "A: s3cret\x01", ": s3cret", "Range: s3cret", "host: s3cret"]
)
def test_bad_fields_are_refused_without_saying_them(monkeypatch, text):
    monkeypatch.setenv("TOKEN", f"X: y\n{text}")
    with pytest.raises(ConfigError) as caught:
        read_fields("env:TOKEN")
    assert "line 2" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("source", ["env:NO_SUCH", "file:/no/such"])
def test_fields_that_are_not_there_are_an_error(source):
    with pytest.raises(ConfigError):
        read_fields(source)


def test_fields_become_the_request_s():
    environ = {"HTTP_ACCEPT": "a"}
    add_fields(environ, [("X-Auth-Token", "t"), ("Accept", "b"), ("Content-Type", "c")])
    assert environ == {"HTTP_ACCEPT": "a, b", "HTTP_X_AUTH_TOKEN": "t", "CONTENT_TYPE": "c"}


def test_values_of_fields_are_taken_from_reasons():
    fields = [("Authorization", "Bearer abcd")]
    assert without("bad token abcd in Bearer abcd", fields) == "bad token ... in ..."


@pytest.mark.parametrize(
    ("status", "is_lasting"),
    [
        ("404 Not Found", True),
        ("410 Gone", True),
        ("302 Found", True),
        ("408 Request Timeout", False),
        ("429 Too Many Requests", False),
        ("500 Internal Server Error", False),
        ("503 Service Unavailable", False),
    ],
)
def test_a_status_is_lasting_or_passing(status, is_lasting):
    outcome = of_answer(status, [])
    assert outcome.reason == f"the app answered {status}"
    assert outcome.is_lasting is is_lasting


@pytest.mark.parametrize(
    ("field", "reason", "is_lasting"),
    [
        ("cachemw; fwd=uri-miss; detail=private", "it says private (private)", True),
        ("cachemw; fwd=uri-miss; detail=full", "there is no room for it (full)", False),
        ("cachemw; hit, cachemw; fwd=uri-miss; detail=vary", "(vary)", True),
        ("other; hit", "no route of the cache", True),
    ],
)
def test_why_an_answer_is_not_stored(field, reason, is_lasting):
    outcome = of_answer("200 OK", [("cache-status", field)])
    assert reason in outcome.reason
    assert outcome.is_lasting is is_lasting


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("cachemw; hit", outcomes.DONE),
        ("cachemw; hit; detail=adopted", outcomes.DONE),
        ("cachemw; fwd=uri-miss; stored", None),
        ("cachemw; fwd=uri-miss; collapsed", None),
        ("cachemw; fwd=stale; fwd-status=304", None),
        ("cachemw; fwd=uri-miss; detail=unheard-of", None),
    ],
)
def test_what_may_be_stored_is_read_to_its_end(field, expected):
    assert of_answer("200 OK", [("Cache-Status", field)]) == expected


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ChecksumMismatch("cat", "md5 is x, not y"), "wrong checksum: md5 is x, not y"),
        (LengthMismatch("cat", "too short"), "too short"),
        (UpstreamFailed("('Connection broken', 5)"), "the app broke off after 7 bytes"),
        (KeyError("x"), "the app failed after 7 bytes: KeyError: 'x'"),
    ],
)
def test_errors_are_told_for_people(error, reason):
    assert of_error(error, 7).reason == reason


class Body:
    def __init__(self, *chunks):
        self.chunks, self.read, self.closed = chunks, 0, 0

    def __iter__(self):
        for chunk in self.chunks:
            self.read += 1
            yield chunk

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(("word", "read"), [("stored", 2), ("detail=private", 0)])
def test_only_what_is_stored_is_read_and_each_body_is_closed(word, read):
    body, counts = Body(b"ab", b"c"), []

    def app(environ, start_response):
        start_response("200 OK", [("Cache-Status", f"cachemw; fwd=uri-miss; {word}")])
        return body

    outcome = call(app, {}, counts.append)
    assert (outcome is None) is bool(read)
    assert (body.read, body.closed) == (read, 1)
    assert sum(counts) == (3 if read else 0)


def test_every_word_of_the_reference_has_a_meaning():
    """A word that is not known here would have a whole answer read for nothing."""
    from pathlib import Path

    page = Path(__file__).parents[3] / "docs" / "reference" / "cache-status.rst"
    if not page.exists():
        pytest.skip("the documentation is not beside the tests")
    text = page.read_text(encoding="utf-8")
    part = text.partition("Why the answer was not stored")[2].partition("Hits that")[0]
    words = {line.split("``")[1] for line in part.splitlines() if line.startswith("``")}
    known = {*outcomes._NOT_STORED, *outcomes._NOT_STORED_NOW}
    assert words - {"detail", "head", "method"} <= known
    assert known <= words
