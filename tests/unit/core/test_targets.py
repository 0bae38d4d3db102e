"""An id gives the request that has this id, or none."""

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from cachemw.core.config import Settings
from cachemw.core.targets import environ_of, parse_url, target_of
from cachemw.web.routes import Routes

SERVERS = [
    {"wsgi.url_scheme": "http", "SERVER_NAME": "h", "SERVER_PORT": "80", "SCRIPT_NAME": ""},
    {"wsgi.url_scheme": "https", "SERVER_NAME": "h", "SERVER_PORT": "8", "SCRIPT_NAME": "/a b/c"},
]

BYTES = st.binary(max_size=40).map(lambda octets: octets.decode("latin-1"))
TEXT = st.text("ab/%?&#. +;é\xff%253Fä", max_size=30) | BYTES
QUERY = st.text("ab%?&=/;+#", max_size=20)


def of(preset, **options):
    settings = Settings.from_options({"dir": "/x", "preset": preset, **options})
    service = settings.service
    return settings, Routes(
        settings.routes, service.resources, service.query_in_id, service.query_apart
    )


def request_for(path, query, raw=None, script="", host="h"):
    request = {
        "REQUEST_METHOD": "GET",
        "wsgi.url_scheme": "http",
        "SERVER_NAME": "h",
        "SERVER_PORT": "80",
        "HTTP_HOST": host,
        "SCRIPT_NAME": script,
        "PATH_INFO": path,
        "QUERY_STRING": query,
    }
    return request if raw is None else {**request, "RAW_URI": raw}


#: A path as WSGI has it.
ODD = "/é ".encode().decode("latin-1")

NAMED = [
    of("glance"),
    of("swift"),
    of("any", routes="/i/(?P<image_id>.+)/raw", image_path="/i/{image_id}/raw"),
    of("any", routes=f"{ODD}(?P<image_id>.+)", image_path="/%C3%A9%20{image_id}"),
]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("settings", "routes"), NAMED)
@given(text=TEXT, query=QUERY)
@example(text="a%3Fb", query="")
@example(text="a?b", query="c?d")
@example(text="%25", query="%3F")
@example(text="\xff%", query="")
@example(text="//a//", query="")
def test_id_that_a_route_gives_leads_back_to_it(settings, routes, server, text, query):
    prefix, _, suffix = settings.image_path.partition("{image_id}")
    prefix = ODD if prefix.startswith("/%C3") else prefix
    text = f"a/c/{text}" if settings.preset == "swift" else text
    image_id = routes.image_id(request_for(f"{prefix}{text}{suffix}", query))
    assume(image_id is not None)

    target = target_of(image_id, None, settings)
    assert routes.image_id(environ_of(target, server)) == image_id


@pytest.mark.parametrize("server", SERVERS)
@given(text=TEXT, query=QUERY, script=st.sampled_from(["", "/a b/c", "/z"]), is_raw=st.booleans())
def test_id_that_is_a_uri_leads_back_to_it(server, text, query, script, is_raw):
    settings, routes = of("any")
    path = f"/{text}"
    raw = None
    if is_raw:
        raw = "".join(f"%{ord(c):02x}" for c in f"{script}{path}")
        raw = f"/{raw[3:]}"
    image_id = routes.image_id(request_for(path, query, raw, script, host="H:8080"))
    assume(image_id is not None)

    target = target_of(image_id, None, settings)
    assert routes.image_id(environ_of(target, server)) == image_id


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("settings", "routes"), [*NAMED, of("registry")])
@given(text=TEXT, query=QUERY)
def test_url_of_a_request_leads_back_to_its_id(settings, routes, server, text, query):
    script = server["SCRIPT_NAME"]
    for path in (
        f"/v2/images/{text}/file",
        f"/v1/a/c/{text}",
        f"/i/{text}/raw",
        ODD + text,
        f"/v2/{text}/blobs/sha256:{'0' * 64}",
    ):
        request = request_for(path, f"{query}&temp_url_sig=secret", script=script)
        image_id = routes.image_id(request)
        if image_id is None:
            continue
        url = routes.url(request)
        if settings.preset != "any":
            assert "secret" not in url
        assert routes.image_id(environ_of(target_of(image_id, url, settings), server)) == image_id


@pytest.mark.parametrize(
    ("preset", "image_id", "expected"),
    [
        ("any", "cat", False),
        ("any", "http://host/cat", True),
        ("any", "ftp://host/cat", False),
        ("glance", "cat", True),
        ("swift", "a/c/o", True),
        ("swift", "\ud800", False),
        ("registry", f"sha256:{'0' * 64}", False),
    ],
)
def test_what_says_how_an_image_is_fetched(preset, image_id, expected):
    settings, _ = of(preset)

    assert (target_of(image_id, None, settings) is not None) is expected
    assert target_of(image_id, "http://host/x", settings) is not None
    assert target_of(image_id, "x", settings) is None


@pytest.mark.parametrize("url", ["", "http://", "http:///x", "x", "http://a b/", "HTTP://h/"])
def test_what_is_no_url(url):
    assert parse_url(url) is None


def test_nobody_is_said_to_ask_from_nearby():
    settings, _ = of("glance")

    environ = environ_of(target_of("cat", None, settings))
    assert "REMOTE_ADDR" not in environ
    assert environ["PATH_INFO"] == "/v2/images/cat/file"
