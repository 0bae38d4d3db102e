"""Values as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.commands import _shown


@given(st.text(max_size=20), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_no_control_character_of_an_id_is_shown(string, encoding):
    shown = _shown.text(string, encoding)

    assert shown.isprintable()
    shown.encode(encoding)


@given(st.text(max_size=8), st.text(max_size=8))
def test_two_ids_never_look_the_same(one, other):
    assert (_shown.text(one) == _shown.text(other)) == (one == other)


def test_what_steers_a_terminal_or_a_table_is_escaped():
    assert _shown.text("a\x1b[31m\t\n\x7f\x9b\u202e\u2028\udc80\\") == (
        r"a\x1b[31m\t\n\x7f\x9b\u202e\u2028\udc80" + "\\\\"
    )
    assert _shown.text("Käse 1.iso") == "Käse 1.iso"
    assert _shown.text("Käse", "ascii") == r"K\xe4se"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (10 * 2**30, "10.0 GiB"),
        (3 * 2**50, "3.0 PiB"),
        (5000 * 2**50, "5000.0 PiB"),
        (0.4, "0 B"),
    ],
)
def test_sizes(value, shown):
    assert _shown.size(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0 s"), (59.9, "59 s"), (61, "1 min 01 s"), (3700, "1 h 01 min"), (90000, "1 d 01 h")],
)
def test_durations(value, shown):
    assert _shown.duration(value) == shown


def test_nothing_is_called_whole_that_is_not():
    assert [_shown.percent(share) for share in (None, 0, 0.999, 1)] == ["-", "0 %", "99 %", "100 %"]
    assert _shown.bar(0.999, 12) == "[#########.]"
    assert _shown.bar(7, 12) == "[##########]"
    assert _shown.bar(None, 12) == "[??????????]"


def test_a_time_that_no_calendar_has_is_no_trouble():
    assert _shown.moment(1e300) == _shown.moment(None) == "-"
    assert len(_shown.moment(1_700_000_000)) == len("2023-11-14 22:13:20")


@given(st.text(max_size=30), st.integers(1, 30))
def test_clipping_keeps_both_ends(string, width):
    shown = _shown.clipped(string, width)

    assert len(shown) == min(len(string), width)
    assert shown[:1] == string[:1]
    if width >= 5:
        assert shown[-1:] == string[-1:]
