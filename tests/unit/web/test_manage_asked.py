"""What a request to the management API asks."""

import io

import pytest

from cachemw.web.manage.answers import Problem
from cachemw.web.manage.asked import Asked, path_of


def path(path_info, raw=None, script="", key="RAW_URI"):
    environ = {"PATH_INFO": path_info, "SCRIPT_NAME": script}
    return path_of(environ | ({} if raw is None else {key: raw}))


@pytest.mark.parametrize(
    ("path_info", "raw", "expected"),
    [
        ("/a b", None, "/a b"),
        ("/caf\xc3\xa9", None, "/café"),
        ("/\xff", None, "/\udcff"),
        ("/a%20b", None, "/a%20b"),
        ("/a%20b", "/a%2520b", "/a%20b"),
        ("/a/b", "/a%2Fb?x=%2F", "/a/b"),
        # Some servers join slashes, and some leave them quoted.
        ("/http:/h/p", "/http://h/p", "/http://h/p"),
        ("/http:/h/p", "/http%3A%2F%2Fh%2Fp", "/http://h/p"),
        ("/a%2Fb", "/a%2Fb", "/a/b"),
        ("/a", "http://host/a", "/a"),
        # Somebody in between has changed it.
        ("/a", "/b", "/a"),
        ("/a", "/", "/a"),
        ("/a", "", "/a"),
        ("/a", "/\u20ac", "/a"),
    ],
)
def test_a_path_is_unquoted_once(path_info, raw, expected):
    assert path(path_info, raw) == path(path_info, raw, key="REQUEST_URI") == expected


def test_the_mount_point_is_not_part_of_it():
    assert path("/x/y", "/cache/x%2Fy", script="/cache") == "/x/y"
    assert path("/x", "/other/x", script="/cache") == "/x"
    assert path("", "/cache", script="/cache") == ""


def asked(**environ):
    return Asked({"REQUEST_METHOD": "POST", **environ}, "", "/", "")


def test_a_query_is_read():
    query = asked(QUERY_STRING="a=1&b=%FF&c=").query("a", "b", "c", "d")

    assert query == {"a": "1", "b": "\udcff", "c": ""}
    assert asked().query("a") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serach=x", "unknown parameter 'serach': expected search, sort"),
        ("search=x&search=y", "twice"),
        ("=", "unknown parameter ''"),
    ],
)
def test_a_query_with_anything_else_is_refused(text, message):
    with pytest.raises(Problem, match=message) as caught:
        asked(QUERY_STRING=text).query("search", "sort")
    assert caught.value.status == 400


def options(body, length=None, **environ):
    length = str(len(body)) if length is None else length
    return asked(CONTENT_LENGTH=length, **{"wsgi.input": io.BytesIO(body)}, **environ).options()


def test_a_body_is_an_object_or_nothing():
    assert options(b'{"repair": true}') == {"repair": True}
    assert options(b"") == options(b" \n") == options(b"{}") == {}
    assert options(b'{"a": 1} and more', length="8") == {"a": 1}
    assert options(b"ignored", length="") == {}
    assert options(b'{"a": 1}', length="", **{"wsgi.input_terminated": True}) == {"a": 1}


@pytest.mark.parametrize(
    ("body", "length", "status"),
    [
        (b"[]", None, 400),
        (b"repair=1", None, 400),
        (b"\xff", None, 400),
        (b"[" * 10_000, None, 400),
        (b"{}", "-2", 400),
        (b"{}", "two", 400),
        (b"{}", "9" * 30, 400),
        (b"{}", "65537", 413),
        (b" " * 65_537, None, 413),
    ],
)
def test_any_other_body_is_refused(body, length, status):
    with pytest.raises(Problem) as caught:
        options(body, length)
    assert caught.value.status == status


def test_a_body_without_a_length_ends_somewhere():
    with pytest.raises(Problem) as caught:
        options(b" " * 70_000, length="", **{"wsgi.input_terminated": True})
    assert caught.value.status == 413
