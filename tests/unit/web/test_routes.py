"""Which requests are about an image, and under which id."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.names import MAX_ID_LENGTH
from cachemw.web import routes as routes_module
from cachemw.web.routes import Routes, target_uri


def environ(path="/cat.png", **extra):
    return {
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "server",
        "SERVER_PORT": "8080",
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        **extra,
    }


def test_target_uri_has_scheme_host_path_and_query():
    """RFC 9110, section 7.1."""
    request = environ(SCRIPT_NAME="/images", HTTP_HOST="Example.org:81", QUERY_STRING="w=1")

    assert target_uri(request) == "http://example.org:81/images/cat.png?w=1"


def test_host_is_the_servers_own_where_the_client_sent_none():
    assert target_uri(environ()) == "http://server:8080/cat.png"


@pytest.mark.parametrize(
    ("scheme", "host", "expected"),
    [
        ("http", "a:80", "http://a/cat.png"),
        ("https", "a:443", "https://a/cat.png"),
        ("http", "a:443", "http://a:443/cat.png"),
        ("http", "[::1]:80", "http://[::1]/cat.png"),
        ("other", "a:80", "other://a:80/cat.png"),
    ],
)
def test_default_port_is_no_difference(scheme, host, expected):
    """RFC 3986, section 6.2.3."""
    assert target_uri(environ(HTTP_HOST=host, **{"wsgi.url_scheme": scheme})) == expected


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_quoted_slash_is_not_a_slash(name):
    plain = target_uri(environ("/a/b", **{name: "/a/b?x"}))
    quoted = target_uri(environ("/a/b", **{name: "/a%2Fb?x"}))

    assert (plain, quoted) == ("http://server:8080/a/b", "http://server:8080/a%2Fb")


@pytest.mark.parametrize("raw", ["http://other/cat.png", "/dog.png", "/c%61t.gif", "/cat.pngÿ"])
def test_raw_target_that_says_something_else_is_not_believed(raw):
    """An absolute-form target, a rewritten path, bytes that no client may send."""
    assert target_uri(environ(RAW_URI=raw)) == "http://server:8080/cat.png"


@pytest.mark.parametrize(
    ("raw", "path", "expected"),
    [
        ("/%61%2e%7E", "/a.~", "/a.~"),
        ("/a%2fb", "/a/b", "/a%2Fb"),
        ('/"<', '/"<', "/%22%3C"),
        ("/%", "/%", "/%"),
        ("/%253f", "/%3f", "/%253f"),
    ],
)
def test_a_path_quoted_otherwise_is_the_same_target(raw, path, expected):
    """RFC 3986, sections 6.2.2.1 and 6.2.2.2: else a PUT to it would leave the copy alone."""
    assert target_uri(environ(path, RAW_URI=raw)) == f"http://server:8080{expected}"


@pytest.mark.parametrize(
    ("host", "path"),
    [
        ("a/images", "/cat.png"),
        ("a/images/cat.png?", "/x"),
        ("a?", "/cat.png"),
        ("a#", "/cat.png"),
        ("u@a", "/cat.png"),
        ("a b", "/cat.png"),
        ("a\\b", "/cat.png"),
        ("a:x", "/cat.png"),
        ("\xe4", "/cat.png"),
        ("a", "http://a/cat.png"),
        ("a", "*"),
    ],
)
def test_host_that_is_none_makes_no_target(host, path):
    """RFC 9110, section 7.2. "a/images" with "/cat" would be "a" with "/images/cat"."""
    assert target_uri(environ(path, HTTP_HOST=host)) is None
    assert Routes([]).image_id(environ(path, HTTP_HOST=host)) is None


@pytest.mark.parametrize(
    "host", ["a", "a-b.c_d:8", "127.0.0.1", "[::1]", "[fe80::1%25en0]:81", "a:"]
)
def test_host_in_any_form_makes_a_target(host):
    """RFC 3986, section 3.2.2."""
    assert target_uri(environ(HTTP_HOST=host)) == f"http://{host}/cat.png"


@given(st.text(st.characters(max_codepoint=255), max_size=20))
def test_two_paths_never_share_a_target(path):
    from urllib.parse import unquote

    uri = target_uri(environ(f"/{path}"))

    assert unquote(uri.removeprefix("http://server:8080"), "latin-1") == f"/{path}"
    assert uri.isascii()


def test_without_routes_every_path_is_an_images():
    assert Routes([]).image_id(environ()) == "http://server:8080/cat.png"


def test_id_too_long_to_keep_is_no_image():
    assert Routes([]).image_id(environ("/" + "x" * 2000)) is None


def test_route_must_match_the_whole_path():
    """Else one id would stand for several resources."""
    routes = Routes(["/images/(?P<image_id>[^/]+)"])

    assert routes.image_id(environ("/images/cat")) == "cat"
    assert routes.image_id(environ("/images/cat/members")) is None
    assert routes.image_id(environ("/x/images/cat")) is None


def test_query_is_part_of_the_id_that_a_route_gives():
    routes = Routes(["/images/(?P<image_id>.+)"])

    assert routes.image_id(environ("/images/cat", QUERY_STRING="w=1")) == "cat?w=1"


def test_path_cannot_pass_for_another_path_with_a_query():
    """WSGI unquotes ``%3F``, so that both have the same text."""
    routes = Routes(["/images/(?P<image_id>.+)"])

    assert routes.image_id(environ("/images/cat?w=1")) == "cat%3Fw=1"
    assert routes.image_id(environ("/images/cat%3Fw=1")) == "cat%253Fw=1"


def test_query_that_changes_nothing_is_no_part_of_the_id():
    routes = Routes(["/images/(?P<image_id>.+)"], query_in_id=False)

    assert routes.image_id(environ("/images/cat?%", QUERY_STRING="w=1")) == "cat?%"


@pytest.mark.parametrize("host", ["a/b", "a?b", "a#b", "u@a", "a b", "[::1", ":80", "\xe9", "a:b"])
def test_host_that_is_none_has_no_target(host):
    assert target_uri(environ(HTTP_HOST=host)) is None


@pytest.mark.parametrize(
    "host", ["a", "a.b-c_d", "10.0.0.1:8080", "[::1]:8080", "a:", "[fe80::1%25e]"]
)
def test_host_that_is_one_has(host):
    assert target_uri(environ(HTTP_HOST=host)) == f"http://{host}/cat.png"


def test_route_without_a_group_gives_the_target():
    assert Routes(["/.*[.]png"]).image_id(environ()) == "http://server:8080/cat.png"


def test_first_route_that_matches_counts():
    routes = Routes(["/a/(?P<image_id>.+)", "/(?P<image_id>.+)"])

    assert routes.image_id(environ("/a/b")) == "b"
    assert routes.image_id(environ("/c/b")) == "c/b"


def test_route_that_gives_an_empty_id_gives_none():
    assert Routes(["/(?P<image_id>.*)"]).image_id(environ("/")) is None


def test_id_is_text_as_the_client_meant_it():
    """WSGI hands UTF-8 over as Latin-1 (PEP 3333)."""
    path = "/ü".encode().decode("latin-1")

    assert Routes(["/(?P<image_id>.+)"]).image_id(environ(path)) == "ü"


def test_bytes_that_are_not_utf8_are_an_id_too():
    assert Routes(["/(?P<image_id>.+)"]).image_id(environ("/\xff")) == "\udcff"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("temp_url_sig=1&temp_url_expires=2", "cat"),
        ("temp_url_sig=1&version-id=2", "cat?version-id=2"),
        ("xtemp_url_sig=1", "cat?xtemp_url_sig=1"),
    ],
)
def test_parameters_that_tell_nothing_apart_are_not_in_the_id(query, expected):
    routes = Routes([r"/(?P<image_id>\w+)"], query_apart=["temp_url_sig", "temp_url_expires"])

    assert routes.image_id(environ("/cat", QUERY_STRING=query)) == expected


def test_change_of_a_path_that_is_quoted_another_way_is_one_of_the_plain_path_too():
    """Most apps see the path unquoted."""
    routes = Routes([])
    request = environ("/a;b", RAW_URI="/a%3Bb", REQUEST_METHOD="PUT")

    assert routes.image_id(request) == "http://server:8080/a%3Bb"
    assert routes.changes(request)([]) == ["http://server:8080/a%3Bb", "http://server:8080/a;b"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("wsgi.url_scheme", "https"),
        ("HTTP_HOST", "other"),
        ("SERVER_NAME", "other"),
        ("SERVER_PORT", "81"),
        ("SCRIPT_NAME", "/mount"),
        ("PATH_INFO", "/a/c"),
        ("QUERY_STRING", "w=1"),
        ("RAW_URI", "/a%2Fb"),
        ("REQUEST_URI", "/a%2Fb"),
    ],
)
def test_remembered_id_is_given_for_the_same_request_only(key, text):
    routes = Routes([])
    request, other = environ("/a/b"), environ("/a/b") | {key: text}
    expected = [target_uri(request), target_uri(other)]

    assert expected[0] != expected[1]
    for _ in range(2):
        assert [routes.image_id(request), routes.image_id(other)] == expected


CHANGES = [
    *({"PATH_INFO": text} for text in ("/a%b", "/a", "a", "/\xff", "/\u0100", "/\n")),
    *({"HTTP_HOST": text} for text in ("a", "A:80", "a/b", "")),
    *({"SCRIPT_NAME": text} for text in ("/a", "/a/b")),
    *({"QUERY_STRING": text} for text in ("w=1", "t=1", "w=1&t=1")),
    *({"RAW_URI": text} for text in ("", "/a%2Fb", "/a/b?w=1", "http://a/a/b")),
    *({"REQUEST_URI": text} for text in ("", "/a%2Fb", "/%61/b", "/a/a")),
]


@given(
    st.lists(st.sets(st.integers(0, len(CHANGES) - 1), max_size=2), max_size=8),
    st.sampled_from([[], ["/(?P<image_id>.*)"], ["/a", "/a/.*"]]),
)
def test_what_was_asked_before_changes_no_id(asked, patterns):
    def make_routes():
        return Routes(patterns, query_apart=["t"])

    routes = make_routes()

    for changes in [*asked, *asked]:
        request = environ("/a/b")
        for change in changes:
            request |= CHANGES[change]
        assert routes.image_id(request) == make_routes().image_id(request)


def test_so_many_requests_are_remembered_and_no_more(monkeypatch):
    monkeypatch.setattr(routes_module, "_MOST_KNOWN", 3)
    routes = Routes([])

    for number in range(10):
        assert routes.image_id(environ(f"/{number}")) == f"http://server:8080/{number}"
        assert 0 < len(routes._known) <= 3


def test_long_request_is_not_remembered():
    """Else a client could fill the memory with a thousand of the longest that the server takes."""
    routes = Routes([".*"], query_in_id=False)

    routes.image_id(environ(QUERY_STRING="w" * 3 * MAX_ID_LENGTH))

    assert not routes._known


def test_port_may_be_a_number():
    """PEP 3333 wants a string; not every server gives one."""
    assert Routes([]).image_id(environ(SERVER_PORT=81)) == "http://server:81/cat.png"
