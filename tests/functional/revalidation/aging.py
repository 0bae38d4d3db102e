"""Store an image and let it grow stale; have its app fail, or lie about it."""

from tests.functional.versions import OLD, URL

MODIFIED = "Fri, 20 Nov 2026 10:00:00 GMT"
HIT = "cachemw; hit"
HELD = "cachemw; fwd=stale; fwd-status=304"
STORED = "cachemw; fwd=stale; stored"
LATER = 100  # seconds, more than the origin's max-age

#: Ways to fail for which ``break_down`` has a name.
FAILURES = ["raises", "500 Oh", "502 Oh", "503 Oh", "504 Oh"]


def warm(client):
    """Have the image stored, and in memory where there is one."""
    for _ in range(4):
        assert client.get(URL).body == OLD


def fail(environ):
    """Be an app that raises."""
    raise RuntimeError("no database")


def break_down(origin, how):
    """Let every answer of the app from now on be a failure."""
    if how == "raises":
        origin.before = fail
    else:
        origin.status = how


def lie_once(origin):
    """Let the app's next answer be a 304 about another image than it was asked about."""
    own = origin._is_known

    def is_known(environ):
        origin._is_known = own
        return True

    origin._is_known = is_known
