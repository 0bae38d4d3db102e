"""The app fails when it is asked about a stale image, or has it no more."""

import pytest

from tests.functional.versions import OLD, URL, status_of

from .aging import FAILURES, HELD, LATER, break_down, warm


@pytest.mark.parametrize("tag", ['"old"', None])
@pytest.mark.parametrize("how", FAILURES)
def test_stale_is_better_than_an_error_where_the_answer_says_so(client, origin, clock, how, tag):
    """RFC 5861, section 4."""
    origin.control, origin.tag = "max-age=60, stale-if-error=100", tag
    warm(client)
    clock.tick(LATER)
    break_down(origin, how)

    response = client.get(URL)

    assert response.body == OLD
    status = "" if how == "raises" else f" fwd-status={how[:3]};"
    assert status_of(response) == f"cachemw; fwd=stale;{status} detail=stale-if-error"
    assert 100 <= int(response.headers["Age"]) < 110
    assert origin.closed == origin.opened
    clock.tick(LATER)  # beyond the grace
    if how == "raises":
        with pytest.raises(RuntimeError):
            client.get(URL)
    else:
        assert client.get(URL, status=int(how[:3])).body == b"sorry"
    assert origin.closed == origin.opened


@pytest.mark.parametrize("how", FAILURES)
def test_stale_is_better_than_an_error_where_the_request_says_so(client, origin, clock, how):
    warm(client)
    clock.tick(LATER)
    break_down(origin, how)

    response = client.get(URL, headers={"Cache-Control": "stale-if-error=100"})

    assert response.body == OLD
    assert status_of(response).endswith("detail=stale-if-error")


@pytest.mark.parametrize("how", FAILURES)
@pytest.mark.parametrize(
    "forbid", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"]
)
def test_stale_is_never_served_where_the_answer_forbids_it(client, origin, clock, how, forbid):
    """RFC 9111, section 4.2.4."""
    origin.control = f"max-age=60, stale-if-error=1000, stale-while-revalidate=1000, {forbid}"
    client.get(URL)
    clock.tick(LATER)
    break_down(origin, how)
    headers = {"Cache-Control": "stale-if-error=1000, max-stale=1000"}

    if how == "raises":
        with pytest.raises(RuntimeError):
            client.get(URL, headers=headers)
    else:
        response = client.get(URL, headers=headers, status=int(how[:3]))
        assert status_of(response) == f"cachemw; fwd=stale; fwd-status={how[:3]}; detail=status"
    assert origin.closed == origin.opened


@pytest.mark.parametrize("status", ["403 Forbidden", "503 Oh", "429 Slow Down", "302 Found"])
def test_other_answers_pass_and_the_copy_stays(client, origin, clock, status):
    warm(client)
    clock.tick(LATER)
    origin.status = status

    response = client.get(URL, status=int(status[:3]))

    assert response.body == b"sorry"
    assert status_of(response) == f"cachemw; fwd=stale; fwd-status={status[:3]}; detail=status"
    origin.status = None
    assert status_of(client.get(URL)) == HELD


@pytest.mark.parametrize("tag", ['"old"', None])
@pytest.mark.parametrize("status", ["404 Not Found", "410 Gone"])
def test_what_is_gone_is_dropped(client, origin, cache, clock, status, tag):
    origin.tag = tag
    warm(client)
    clock.tick(LATER)
    origin.status = status

    assert client.get(URL, status=int(status[:3])).body == b"sorry"
    assert cache.get_cached_images() == []
