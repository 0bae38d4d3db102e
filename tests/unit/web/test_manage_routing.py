"""Which management paths there are."""

import pytest

from cachemw.web.manage import app, routing
from cachemw.web.manage.routing import Route, find


@pytest.mark.parametrize(
    ("method", "path", "name", "argument"),
    [
        ("GET", "/", "page", ""),
        ("HEAD", "/healthz", "health", ""),
        ("GET", "/app.js", "file", "app.js"),
        ("GET", "/stats", "stats", ""),
        ("GET", "/stats/history", "history", ""),
        ("GET", "/v1/cached_images", "list_cached", ""),
        ("GET", "/v2/cached_images/a", "show_cached", "a"),
        ("DELETE", "/v1/cached_images", "delete_all_cached", ""),
        ("DELETE", "/v1/cached_images/a/b", "delete_cached", "a/b"),
        ("DELETE", "/v1/cached_images//", "delete_cached", "/"),
        ("DELETE", "/v1/cached_images/a\nb", "delete_cached", "a\nb"),
        ("PUT", "/v1/queued_images/http://h/p", "queue", "http://h/p"),
        ("PUT", "/v2/cache/prune", "queue", "prune"),
        ("POST", "/v2/cache/prune", "start_job", "prune"),
        ("GET", "/v2/cache/jobs/x", "show_job", "x"),
        ("DELETE", "/v2/cache/jobs/x", "delete_anywhere", "jobs/x"),
        ("GET", "/v2/cache/nodes/a", "list_nodes", "a"),
    ],
)
def test_a_request_has_a_handler(method, path, name, argument):
    assert find(method, path) == Route(name, argument)


@pytest.mark.parametrize("prefix", ["/v1/cached_images", "/v1/queued_images", "/v2/cache"])
def test_a_slash_too_many_deletes_nothing(prefix):
    assert find("DELETE", prefix) is not None
    assert find("DELETE", f"{prefix}/") is None


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v3/cached_images", "/v2/caches", "/passwd", "/../x", "/A.js", "//"]
)
def test_other_paths_are_not_there(path):
    assert find("GET", path) is None


@pytest.mark.parametrize(
    ("method", "path", "methods"),
    [
        ("POST", "/stats", ("GET", "HEAD")),
        ("PUT", "/v1/cached_images/a", ("GET", "HEAD", "DELETE")),
        ("GET", "/v2/cache/a", ("PUT", "DELETE")),
        ("GET", "/v2/cache/prune", ("POST", "PUT", "DELETE")),
        ("get", "/healthz", ("GET", "HEAD")),
    ],
)
def test_another_method_is_told_which_there_are(method, path, methods):
    assert find(method, path) == Route("", methods=methods)


def test_every_route_has_a_handler():
    assert set(app._HANDLERS) | {"health"} == routing.NAMES


@pytest.mark.parametrize(
    ("path", "below", "in_front"),
    [
        ("/.cachemw", "", False),
        ("/.cachemw/", "/", False),
        ("/.cachemw/v2/cache", "/v2/cache", False),
        ("/.cachemwx", None, False),
        ("/v2/cache", None, True),
        ("/v2/cache/a\nb", None, True),
        ("/v1/queued_images/x", None, True),
        ("/v2/cacheable", None, False),
        ("/v2/images/x/file", None, False),
        ("/v1/AUTH_a/c/o", None, False),
        ("/healthz", None, False),
        ("/", None, False),
    ],
)
def test_a_filter_serves_glances_paths_and_a_folder_of_its_own(path, below, in_front):
    assert routing.below_folder(path) == below
    assert routing.is_in_front(path) == in_front
    if below is not None or in_front:
        assert path.startswith(routing.BEGINNINGS)
