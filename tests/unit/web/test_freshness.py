"""Freshness: directives, lifetimes, ages, and what may be stored at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web import freshness, storable
from cachemw.web.directives import delta_seconds, parse_directives
from cachemw.web.fields import format_http_date
from cachemw.web.policy import Policy, policy

NOW = 1795176000.0
DAY = 86400.0


def directives(*values):
    return dict(parse_directives(values))


def test_directives_are_read_with_and_without_arguments():
    """RFC 9111, section 5.2."""
    assert directives("max-age=60, public") == {"max-age": "60", "public": None}
    assert directives("No-Store,MAX-AGE=60") == {"no-store": None, "max-age": "60"}


def test_directives_of_several_lines_are_one_list():
    """RFC 9110, section 5.3."""
    assert directives("public", "max-age=60") == {"public": None, "max-age": "60"}


def test_white_space_and_empty_elements_in_directives_are_tolerated():
    """RFC 9110, section 5.6.1.2."""
    assert directives(" ,max-age = 60 ,,\tpublic,") == {"max-age": "60", "public": None}
    assert directives("") == {}


def test_a_quoted_argument_loses_its_quotes():
    """RFC 9111, section 5.2."""
    assert directives('max-age="60"') == {"max-age": "60"}
    assert directives(r'x="a, \"b\\", y') == {"x": 'a, "b\\', "y": None}
    assert directives('x=""') == {"x": ""}


@pytest.mark.parametrize("name", ["max-age", "s-maxage", "max-stale", "stale-while-revalidate"])
def test_the_smallest_of_several_lifetimes_counts(name):
    """RFC 9111, section 4.2.1."""
    assert directives(f"{name}=60, {name}=5") == {name: "5"}
    assert directives(f"{name}=5", f"{name}=60") == {name: "5"}
    assert directives(f"{name}=60, {name}=100") == {name: "60"}


def test_a_malformed_lifetime_counts_as_the_smallest():
    """RFC 9111, section 4.2.1."""
    assert directives("max-age=60, max-age=soon") == {"max-age": "soon"}
    assert directives("max-age, max-age=60") == {"max-age": None}


def test_the_largest_of_several_min_fresh_counts():
    """RFC 9111, section 5.2.1.3: the more is asked, the stricter it is."""
    assert directives("min-fresh=5, min-fresh=60") == {"min-fresh": "60"}


def test_the_first_of_other_duplicates_counts():
    """RFC 9111, section 4.2.1."""
    assert directives("x=2, x=1") == {"x": "2"}


@pytest.mark.parametrize("name", ["private", "no-cache"])
def test_field_names_do_not_limit_a_directive(name):
    """RFC 9111, sections 5.2.2.4 and 5.2.2.7: the whole response may be meant."""
    assert directives(f'{name}="Set-Cookie, X-Name", public') == {name: None, "public": None}


@given(st.lists(st.text(alphabet='max-ge=059", \\private', max_size=30), max_size=3))
def test_no_text_breaks_the_directive_parser(values):
    """RFC 9111, section 5.2."""
    for name in parse_directives(values):
        assert name == name.strip().lower()


def test_hostile_directives_are_read_in_linear_time():
    """Else it would not come to its end in the time that any test has."""
    for value in ('"' * 2**22, 'x="' + "\\" * 2**22, 'a="b,' * 2**19, "max-age=1," * 2**18):
        parse_directives([value])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("60", 60),
        ("0000000000000060", 60),
        ("2147483648", 2**31),
        ("2147483649", 2**31),
        ("9" * 5000, 2**31),
        ("", None),
        (None, None),
        ("-1", None),
        ("+1", None),
        ("1.5", None),
        ("1e3", None),
        ("1_0", None),
        (" 1", None),
        ("1\n", None),
        ("0x1", None),
        ("\u00b2", None),
        ("\u0661", None),
    ],
)
def test_delta_seconds_are_digits_and_bounded(text, seconds):
    """RFC 9111, section 1.2.2."""
    assert delta_seconds(text) == seconds


@given(st.integers(0, 2**40))
def test_delta_seconds_are_read_back(seconds):
    """RFC 9111, section 1.2.2."""
    assert delta_seconds(str(seconds)) == min(seconds, 2**31)


def lifetime(**headers):
    return lifetime_of([(name.replace("_", "-"), value) for name, value in headers.items()])


def lifetime_of(headers):
    """Seconds for which an answer is served unasked."""
    found = policy(headers, NOW)
    return 0.0 if found.no_cache else found.lifetime


def at(offset):
    return format_http_date(NOW + offset)


def test_s_maxage_comes_before_max_age_and_max_age_before_expires():
    """RFC 9111, section 4.2.1."""
    assert lifetime(Cache_Control="max-age=60, s-maxage=5", Expires=at(99)) == 5
    assert lifetime(Cache_Control="s-maxage=500, max-age=60", Expires=at(99)) == 500
    assert lifetime(Cache_Control="max-age=60", Expires=at(99), Date=at(0)) == 60


@pytest.mark.parametrize(
    "value", ["max-age=soon", "max-age", "max-age=-1", "s-maxage=x, max-age=9"]
)
def test_a_malformed_max_age_is_stale(value):
    """RFC 9111, section 4.2.1."""
    assert lifetime(Cache_Control=value, Expires=at(99), Last_Modified=at(-DAY)) == 0


def test_no_cache_leaves_no_lifetime():
    """RFC 9111, sections 4.2.1 and 5.2.2.4: the most restrictive directive counts."""
    assert lifetime(Cache_Control="max-age=60, no-cache") == 0
    assert lifetime(Cache_Control='no-cache="X-Name"', Expires=at(99)) == 0


def test_expires_counts_from_the_date_of_the_response():
    """RFC 9111, section 4.2.1."""
    assert lifetime(Expires=at(50), Date=at(-10)) == 60
    assert lifetime(Expires=at(50), Date=at(30)) == 20
    assert lifetime(Expires=at(-50), Date=at(0)) == 0


@pytest.mark.parametrize("headers", [{}, {"Date": "today"}])
def test_a_response_without_a_good_date_was_made_when_it_arrived(headers):
    """RFC 9110, section 6.6.1."""
    assert lifetime(Expires=at(50), **headers) == 50


@pytest.mark.parametrize("value", ["0", "-1", "never", ""])
def test_a_malformed_expires_is_in_the_past(value):
    """RFC 9111, section 5.3."""
    assert lifetime(Expires=value, Last_Modified=at(-DAY)) == 0


def test_the_earliest_of_several_expires_counts():
    """RFC 9111, section 4.2.1."""
    headers = [("Expires", at(50)), ("Expires", at(20)), ("Expires", at(60))]

    assert lifetime_of(headers) == 20
    assert lifetime_of([*headers, ("Expires", "0")]) == 0


def test_an_unstated_lifetime_is_a_tenth_of_the_time_since_the_change():
    """RFC 9111, section 4.2.2."""
    assert lifetime(Last_Modified=at(-1000), Date=at(0)) == pytest.approx(100)
    assert lifetime(Last_Modified=at(-1000), Date=at(-500)) == pytest.approx(50)
    assert lifetime(Last_Modified=at(-1000)) == pytest.approx(100)
    assert lifetime(Last_Modified=at(-1000), Cache_Control="public") == pytest.approx(100)


def test_an_unstated_lifetime_is_at_most_a_day():
    """RFC 9111, section 4.2.2."""
    assert lifetime(Last_Modified=at(-1000 * DAY)) == DAY


@pytest.mark.parametrize("headers", [{}, {"Last_Modified": "x"}, {"Last_Modified": at(60)}])
def test_nothing_known_is_no_lifetime(headers):
    """RFC 9111, section 4.2.2."""
    assert lifetime(**headers) == 0


def initial_age(request_time=NOW, **headers):
    return freshness.initial_age(list(headers.items()), request_time, NOW)


def test_a_response_made_now_has_no_age():
    """RFC 9111, section 4.2.3."""
    assert initial_age() == 0
    assert initial_age(Date=at(0)) == 0


def test_the_initial_age_is_the_greater_of_apparent_and_stated_age():
    """RFC 9111, section 4.2.3."""
    assert initial_age(Date=at(-20), Age="5") == 20
    assert initial_age(Date=at(-20), Age="50") == 50
    assert initial_age(Age="50") == 50


def test_the_time_that_the_response_took_adds_to_its_stated_age():
    """RFC 9111, section 4.2.3."""
    assert initial_age(NOW - 3, Age="50") == 53
    assert initial_age(NOW - 3) == 3
    assert initial_age(NOW - 3, Date=at(-20)) == 20


def test_clocks_that_run_back_make_no_negative_age():
    """RFC 9111, section 4.2.3."""
    assert initial_age(Date=at(60)) == 0
    assert initial_age(NOW + 60, Age="5") == 5
    assert freshness.current_age(5.0, NOW, NOW - 60) == 5


@pytest.mark.parametrize(
    ("value", "age"), [("50, 70", 50), ("x", 0), ("-5", 0), ("x, 50", 0), ("", 0), (",", 0)]
)
def test_the_first_member_of_age_counts_and_a_malformed_one_is_ignored(value, age):
    """RFC 9111, section 5.1."""
    assert initial_age(Age=value) == age


def test_a_malformed_date_adds_no_age():
    """RFC 9110, section 6.6.1."""
    assert initial_age(Date="today", Age="5") == 5


def test_a_stored_response_ages_with_time():
    """RFC 9111, section 4.2.3."""
    assert freshness.current_age(5.0, NOW, NOW + 10) == 15


def allows(control=None, pragma=None, age=30.0, lifetime=60.0):
    environ = {"HTTP_CACHE_CONTROL": control, "HTTP_PRAGMA": pragma}
    present = {name: value for name, value in environ.items() if value is not None}
    return is_served(present, age, lifetime)


def is_served(environ, age, lifetime):
    """Whether what must not be served stale is served unasked."""
    stored = Policy(lifetime=lifetime, must_revalidate=True)
    return freshness.decide(environ, age, stored).action == freshness.SERVE


def test_a_plain_request_gets_whatever_is_fresh():
    """RFC 9111, section 4.2: fresh means younger than the lifetime."""
    assert allows()
    assert allows(age=59.9)
    assert not allows(age=60.0)
    assert not allows(age=0.0, lifetime=0.0)
    assert allows(age=1e12, lifetime=float("inf"))


def test_a_plain_request_costs_two_lookups():
    """It is on the way of every hit."""
    asked = []

    class Environ(dict):
        def get(self, key, default=None):
            asked.append(key)
            return default

        def __contains__(self, key):
            raise AssertionError(key)

        __getitem__ = __contains__

    assert is_served(Environ(), 1.0, 2.0)
    assert len(asked) == 2


@pytest.mark.parametrize("control", ["no-cache", "No-Cache", "max-age=99, no-cache", "no-cache=x"])
def test_no_cache_asks_for_a_new_answer(control):
    """RFC 9111, section 5.2.1.4."""
    assert not allows(control)


def test_a_request_may_limit_the_age():
    """RFC 9111, section 5.2.1.1."""
    assert allows("max-age=30")
    assert not allows("max-age=29")
    assert not allows("max-age=0")
    assert not allows("max-age=0", age=0.0)
    assert not allows("max-age=soon")


def test_a_request_may_want_some_lifetime_left():
    """RFC 9111, section 5.2.1.3."""
    assert allows("min-fresh=30")
    assert not allows("min-fresh=31")
    assert not allows("min-fresh=soon")


@pytest.mark.parametrize("control", ["max-stale", "max-stale=9999", "max-age=9999", "public"])
def test_no_request_gets_a_stale_response(control):
    """RFC 9111, section 5.2.1.2: max-stale permits, it does not demand."""
    assert allows(control)
    assert not allows(control, age=60.0)


def test_no_store_in_a_request_does_not_keep_it_from_what_is_stored():
    """RFC 9111, section 5.2.1.5."""
    assert allows("no-store")


def test_pragma_counts_only_without_cache_control():
    """RFC 9111, section 5.4."""
    assert not allows(pragma="no-cache")
    assert not allows(pragma="x, No-Cache")
    assert allows(pragma="x")
    assert not allows(pragma="x", age=60.0)
    assert allows("max-age=60", pragma="no-cache")


def refuses(*headers, method="GET", status=200, credentials=False, control=None, names=()):
    request = {"REQUEST_METHOD": method}
    if control is not None:
        request["HTTP_CACHE_CONTROL"] = control
    return storable.refusal(
        request,
        status,
        headers,
        policy(headers, NOW),
        has_credentials=credentials,
        credential_fields=names,
    )


def test_a_plain_200_to_a_get_may_be_stored():
    """RFC 9111, section 3."""
    assert refuses() is None
    assert refuses(("Cache-Control", "max-age=60"), ("Vary", "Accept"), control="no-cache") is None


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "get"])
def test_only_the_answer_to_a_get_is_stored(method):
    """RFC 9111, section 3."""
    assert refuses(method=method) == "method"


@pytest.mark.parametrize("status", [201, 203, 204, 206, 301, 304, 404, 500])
def test_only_a_200_is_stored(status):
    """RFC 9111, section 3."""
    assert refuses(status=status) == "status"


def test_no_store_on_either_side_forbids():
    """RFC 9111, sections 5.2.1.5 and 5.2.2.5."""
    assert refuses(("Cache-Control", "public, No-Store")) == "no-store"
    assert refuses(("Cache-Control", "public"), ("cache-control", "no-store")) == "no-store"
    assert refuses(control="no-store") == "no-store"


@pytest.mark.parametrize("value", ["private", 'private="X-Name"', "max-age=60, private"])
def test_private_forbids(value):
    """RFC 9111, section 5.2.2.7."""
    assert refuses(("Cache-Control", value)) == "private"


def test_a_cookie_being_set_forbids():
    """RFC 9111, section 7.3: it is meant for one person."""
    assert refuses(("set-cookie", "a=b"), ("Cache-Control", "public")) == "set-cookie"


@pytest.mark.parametrize("value", ["*", "Accept, *", "*,Accept", " , * "])
def test_a_star_anywhere_in_vary_forbids(value):
    """RFC 9111, section 4.1."""
    assert refuses(("Vary", value)) == "vary"
    assert refuses(("Vary", "Accept"), ("vary", value)) == "vary"


def test_a_response_that_varies_by_credentials_is_not_stored():
    """RFC 9111, section 4.1; RFC 9110, section 12.5.5."""
    names = frozenset(["cookie", "x-auth-token"])

    assert refuses(("Vary", "Accept, X-Auth-Token"), names=names) == "vary"
    assert refuses(("Vary", "Accept, X-Other-Token"), names=names) is None
    assert refuses(("Vary", "X-Auth-Token")) is None


def test_the_answer_to_credentials_is_stored_only_if_it_says_so():
    """RFC 9111, section 3.5."""
    assert refuses(credentials=True) == "credentials"
    assert refuses(("Cache-Control", "max-age=60"), credentials=True) == "credentials"
    assert refuses(("Cache-Control", "proxy-revalidate"), credentials=True) == "credentials"


@pytest.mark.parametrize("value", ["public", "s-maxage=60", "max-age=60, Must-Revalidate"])
def test_what_says_so_is_stored_in_spite_of_credentials(value):
    """RFC 9111, section 3.5."""
    assert refuses(("Cache-Control", value), credentials=True) is None


ANY = Policy(lifetime=60.0)
MEANWHILE = Policy(lifetime=60.0, stale_while_revalidate=10.0)
ON_ERROR = Policy(lifetime=60.0, stale_if_error=10.0)


def decide(age, policy=ANY, control=None, pragma=None):
    environ = {"HTTP_CACHE_CONTROL": control, "HTTP_PRAGMA": pragma}
    present = {name: value for name, value in environ.items() if value is not None}
    return freshness.decide(present, age, policy)


def action(*arguments, **options):
    return decide(*arguments, **options).action


def test_what_is_fresh_is_served():
    """RFC 9111, section 4."""
    assert decide(59.9) == freshness.Decision("serve")
    assert decide(1e12, Policy(lifetime=float("inf"))) == freshness.Decision("serve")
    assert decide(60.0) == freshness.Decision("revalidate", "stale")


def test_no_cache_in_the_response_has_the_app_asked_every_time():
    """RFC 9111, section 5.2.2.4."""
    policy = Policy(lifetime=60.0, no_cache=True, stale_while_revalidate=99.0, stale_if_error=99.0)

    assert decide(0.0, policy) == freshness.Decision("revalidate", "stale")
    assert decide(99.0, policy, "max-stale") == freshness.Decision("revalidate", "stale")


@pytest.mark.parametrize(
    "control", ["no-cache", "max-age=0", "max-age=29", "max-age=x", "min-fresh=31", "min-fresh=x"]
)
def test_a_request_may_refuse_what_is_fresh(control):
    """RFC 9111, section 5.2.1."""
    assert decide(30.0, control=control) == freshness.Decision("revalidate", "request")


@pytest.mark.parametrize("control", ["max-age=30", "min-fresh=30", "no-store", "max-stale", "x"])
def test_a_request_may_be_content_with_what_is_fresh(control):
    """RFC 9111, section 5.2.1."""
    assert decide(30.0, control=control).action == "serve"


def test_pragma_refuses_what_is_fresh():
    """RFC 9111, section 5.4."""
    assert decide(30.0, pragma="no-cache").forward == "request"
    assert action(30.0, pragma="no-cache", control="max-age=99") == "serve"


def test_a_reload_does_not_have_the_app_asked_about_what_is_immutable():
    """RFC 8246, section 2."""
    policy = Policy(lifetime=60.0, immutable=True)

    assert action(30.0, policy, "max-age=0") == "serve"
    assert action(30.0, policy, "no-cache") == "revalidate"
    assert action(30.0, policy, pragma="no-cache") == "revalidate"
    assert action(30.0, policy, "min-fresh=31") == "revalidate"
    assert action(60.0, policy, "max-age=0") == "revalidate"


@pytest.mark.parametrize(
    ("control", "served"),
    [
        ("max-stale", True),
        ("max-stale=40", True),
        ("max-stale=39", False),
        ("max-stale=x", False),
        ("max-stale=", False),
        ("max-stale=-1", False),
        ("max-stale, max-age=100", True),
        ("max-stale, max-age=99", False),
        ("max-stale, min-fresh=1", False),
        ("max-stale, no-cache", False),
        ("max-age=999", False),
    ],
)
def test_a_request_may_take_what_is_stale(control, served):
    """RFC 9111, sections 5.2.1.1 and 5.2.1.2."""
    assert decide(100.0, control=control).action == ("serve" if served else "revalidate")


def test_a_response_may_forbid_what_the_request_would_take():
    """RFC 9111, section 4.2.4."""
    policy = Policy(lifetime=60.0, must_revalidate=True)

    assert decide(61.0, policy, "max-stale") == freshness.Decision("revalidate", "stale")


def test_a_stale_response_is_served_while_the_app_is_asked():
    """RFC 5861, section 3."""
    assert decide(69.9, MEANWHILE) == freshness.Decision(
        "serve-stale-and-revalidate", "stale", stale_if_error=True
    )
    assert decide(70.0, MEANWHILE) == freshness.Decision("revalidate", "stale")
    assert action(59.9, MEANWHILE) == "serve"


@pytest.mark.parametrize("control", ["no-cache", "max-age=999", "min-fresh=0"])
def test_a_request_that_wants_something_fresh_waits_for_it(control):
    """RFC 9111, section 5.2.1.1: without max-stale nothing stale is wanted."""
    assert action(65.0, MEANWHILE, control) == "revalidate"


def test_must_revalidate_comes_before_every_grace():
    """RFC 9111, section 4.2.4."""
    policy = Policy(
        lifetime=60.0, must_revalidate=True, stale_while_revalidate=9.0, stale_if_error=9.0
    )

    assert decide(61.0, policy) == freshness.Decision("revalidate", "stale")
    assert not on_error(1.0, policy)
    assert not on_error(1.0, Policy(no_cache=True), "stale-if-error=99")


def on_error(overdue, policy=ON_ERROR, control=""):
    age = policy.lifetime + overdue
    return freshness.decide({"HTTP_CACHE_CONTROL": control}, age, policy).stale_if_error


def test_either_side_may_take_something_stale_for_a_failure():
    """RFC 5861, section 4."""
    assert on_error(9.9)
    assert not on_error(10.0)
    assert not on_error(0.0, ANY)
    assert on_error(9.9, ANY, "stale-if-error=10")
    assert not on_error(10.0, ANY, "stale-if-error=10")
    assert on_error(50.0, ON_ERROR, "stale-if-error=99")
    assert not on_error(0.0, ANY, "stale-if-error=x")


@pytest.mark.parametrize("control", ["no-cache", "max-age=0", "min-fresh=1"])
def test_a_request_that_wants_something_fresh_gets_the_failure(control):
    """RFC 9111, section 5.2.1: unless it says itself what it takes then."""
    assert not on_error(5.0, ON_ERROR, control)
    assert on_error(5.0, ON_ERROR, f"{control}, stale-if-error=6")


def test_a_decision_says_what_a_failure_leads_to():
    """RFC 5861, section 4."""
    assert decide(65.0, ON_ERROR).stale_if_error
    assert not decide(70.0, ON_ERROR).stale_if_error
    assert decide(30.0, ON_ERROR, "no-cache").stale_if_error is False
    assert decide(30.0, ANY, "no-cache, stale-if-error=1").stale_if_error


def test_a_request_may_want_nothing_but_what_is_stored():
    """RFC 9111, section 5.2.1.7."""
    assert freshness.only_if_cached({"HTTP_CACHE_CONTROL": "Only-If-Cached"})
    assert not freshness.only_if_cached({"HTTP_CACHE_CONTROL": "max-age=1"})
    assert not freshness.only_if_cached({})


@given(
    st.text(st.characters(max_codepoint=255), max_size=60),
    st.floats(0, 200),
    st.builds(
        Policy,
        lifetime=st.floats(0, 100),
        no_cache=st.booleans(),
        must_revalidate=st.booleans(),
        stale_while_revalidate=st.floats(0, 100),
        stale_if_error=st.floats(0, 100),
        immutable=st.booleans(),
    ),
)
def test_what_may_not_be_stale_never_is(control, age, policy):
    """RFC 9111, section 4.2.4."""
    decision = decide(age, policy, control)

    assert (decision.forward is None) == (decision.action == "serve")
    if policy.no_cache or (policy.must_revalidate and age >= policy.lifetime):
        assert decision.action == "revalidate"
        assert not decision.stale_if_error
