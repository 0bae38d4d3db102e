"""What PEP 3333 lets apps and servers do."""

from cachemw import CacheFilter
from tests.functional.as_server import call

from .downloading import BODY, URL, client_of, status_of

# Apps


def test_app_that_starts_its_answer_late(cache):
    """PEP 3333: start_response may be called as late as with the first chunk."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png"), ("Cache-Control", "max-age=9")])
        yield BODY[:10]
        yield BODY[10:]

    client = client_of(app, cache)

    assert client.get(URL).body == client.get(URL).body == BODY
    assert status_of(client.get(URL)) == "cachemw; hit"


def test_app_that_writes_its_body_passes(cache):
    """PEP 3333, the write() callable: nothing is buffered, so nothing is stored."""

    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "image/png")])
        write(BODY[:10])
        return [BODY[10:]]

    response = client_of(app, cache).get(URL)

    assert response.body == BODY
    assert status_of(response) == "cachemw; fwd=uri-miss; detail=write"


def test_app_that_changes_its_mind_before_the_first_byte(cache):
    """PEP 3333: start_response with exc_info replaces the answer."""

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "image/png")])
        try:
            raise RuntimeError("no")
        except RuntimeError:
            import sys

            start_response("500 Oh", [("Content-Type", "text/plain")], sys.exc_info())
        return [b"no"]

    response = client_of(app, cache).get(URL, status=500)

    assert response.body == b"no"


# Servers


def test_file_of_the_app_reaches_the_servers_own_wrapper(cache, tmp_path):
    """What is not stored can still go out by sendfile."""
    (tmp_path / "page").write_bytes(b"<html>")

    class Wrapper:
        def __init__(self, file, block_size=8192):
            self.file = file

    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        return environ["wsgi.file_wrapper"](open(tmp_path / "page", "rb"), 100)

    response = call(CacheFilter(app, cache=cache), URL, **{"wsgi.file_wrapper": Wrapper})

    assert isinstance(response.body, Wrapper)
    response.body.file.close()


def test_hit_goes_to_the_servers_own_wrapper_whole(origin, cache):
    class Wrapper:
        def __init__(self, file, block_size=8192):
            self.file = file
            self.close = file.close

    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()

    response = call(app, URL, **{"wsgi.file_wrapper": Wrapper})
    part = call(app, URL, **{"wsgi.file_wrapper": Wrapper, "HTTP_RANGE": "bytes=5-9"})

    assert response.body.file.read() == BODY
    assert part.read() == BODY[5:10]  # not through a wrapper that may start at byte 0
    response.close()


def test_part_goes_to_the_wrapper_of_a_server_that_honours_the_offset(origin, cache):
    class Wrapper:
        def __init__(self, file, block_size=8192):
            self.file = file
            self.close = file.close

    app = CacheFilter(origin, cache=cache)
    call(app, URL).read()
    server = {"wsgi.file_wrapper": Wrapper, "HTTP_RANGE": "bytes=5-9"}

    new = call(app, URL, SERVER_SOFTWARE="gunicorn/27.0.1", **server)
    old = call(app, URL, SERVER_SOFTWARE="gunicorn/20.1.0", **server)

    assert new.body.file.tell() == 5
    assert old.read() == BODY[5:10]
    new.close()
