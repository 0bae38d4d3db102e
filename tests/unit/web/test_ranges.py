"""Range requests: which bytes are asked for, and the layout of several parts."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachemw.web import ranges


@pytest.mark.parametrize(
    ("value", "slices"),
    [
        ("bytes=0-0", [(0, 1)]),
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-", [(0, 10000)]),
        ("bytes=9999-", [(9999, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
    ],
)
def test_the_examples_of_the_specification_hold(value, slices):
    """RFC 9110, section 14.1.2."""
    assert ranges.parse_range(value, 10000) == slices


def test_a_range_that_ends_behind_the_image_is_clipped():
    """RFC 9110, section 14.1.2."""
    assert ranges.parse_range("bytes=5-10", 10) == [(5, 10)]
    assert ranges.parse_range("bytes=5-99999", 10) == [(5, 10)]


def test_a_suffix_longer_than_the_image_is_all_of_it():
    """RFC 9110, section 14.1.2."""
    assert ranges.parse_range("bytes=-10", 10) == [(0, 10)]
    assert ranges.parse_range("bytes=-11", 10) == [(0, 10)]


@pytest.mark.parametrize("value", ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=10-,-000,99-"])
def test_what_lies_behind_the_image_is_unsatisfiable(value):
    """RFC 9110, sections 14.1.2 and 15.5.17."""
    assert ranges.parse_range(value, 10) == []


def test_unsatisfiable_specs_are_left_out_where_others_can_be_satisfied():
    """RFC 9110, section 14.1.2."""
    assert ranges.parse_range("bytes=20-30,0-1,-0", 10) == [(0, 2)]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=--1",
        "bytes=5",
        "bytes=5-3",
        "bytes=0-1,5-3",
        "bytes=5-3,0-1",
        "bytes=0-1,-",
        "bytes=0-1x",
        "bytes=0x0-1",
        "bytes=+0-1",
        "bytes=0-1-2",
        "bytes=0 - 1",
        "bytes=0-1 2-3",
        "bytes=0-1;2-3",
        "bytes=\u00b2-\u00b3",
        "bytes=\u0661-\u0662",
        "bytes:0-1",
        "bytes 0-1/10",
        "0-1",
        "=0-1",
    ],
)
def test_a_malformed_field_is_ignored_as_a_whole(value):
    """RFC 9110, section 14.2."""
    assert ranges.parse_range(value, 10) is None


@pytest.mark.parametrize("value", ["seconds=0-1", "items=0-1", "bytess=0-1", "none=0-1"])
def test_another_unit_is_ignored(value):
    """RFC 9110, section 14.2."""
    assert ranges.parse_range(value, 10) is None


@pytest.mark.parametrize("value", ["Bytes=0-1", "BYTES=0-1", " bytes=0-1\t"])
def test_the_unit_is_read_in_any_case(value):
    """RFC 9110, section 14.1."""
    assert ranges.parse_range(value, 10) == [(0, 2)]


@pytest.mark.parametrize(
    "value", ["bytes=0-1,4-5", "bytes=0-1 , 4-5", "bytes=,0-1,,\t4-5 ,", "bytes=0-1, ,4-5"]
)
def test_white_space_and_empty_elements_are_tolerated(value):
    """RFC 9110, section 5.6.1.2."""
    assert ranges.parse_range(value, 10) == [(0, 2), (4, 6)]


def test_the_first_byte_of_an_empty_image_is_unsatisfiable():
    """RFC 9110, section 14.1.2."""
    assert ranges.parse_range("bytes=0-", 0) == []
    assert ranges.parse_range("bytes=0-0", 0) == []
    assert ranges.parse_range("bytes=-0", 0) == []


def test_a_suffix_of_an_empty_image_is_ignored():
    """RFC 9110, sections 14.1.2 and 14.4: satisfiable, but not expressible."""
    assert ranges.parse_range("bytes=-5", 0) is None
    assert ranges.parse_range("bytes=0-,-5", 0) is None


@pytest.mark.parametrize(
    ("value", "slices"),
    [
        ("bytes=0-4,3-6", [(0, 7)]),
        ("bytes=3-6,0-4", [(0, 7)]),
        ("bytes=0-4,5-6", [(0, 7)]),
        ("bytes=0-4,6-7", [(0, 5), (6, 8)]),
        ("bytes=0-,0-,0-", [(0, 10)]),
        ("bytes=0-9,2-3", [(0, 10)]),
        ("bytes=0-1,-20", [(0, 10)]),
    ],
)
def test_slices_that_overlap_or_touch_become_one(value, slices):
    """RFC 9110, section 15.3.7.2."""
    assert ranges.parse_range(value, 10) == slices


@pytest.mark.parametrize(
    ("value", "slices"),
    [
        ("bytes=8-8,0-0", [(8, 9), (0, 1)]),
        ("bytes=8-8,0-0,4-5", [(8, 9), (0, 1), (4, 6)]),
        ("bytes=4-5,0-0,2-3", [(2, 6), (0, 1)]),
        ("bytes=0-0,8-8,1-2", [(0, 3), (8, 9)]),
    ],
)
def test_the_order_asked_for_is_kept(value, slices):
    """RFC 9110, section 15.3.7.2."""
    assert ranges.parse_range(value, 10) == slices


def test_more_specs_than_the_limit_are_ignored():
    """RFC 9110, section 14.2: a server may ignore many small ranges."""
    specs = [f"{2 * number}-{2 * number}" for number in range(ranges.MAX_RANGES + 1)]

    most = ranges.parse_range("bytes=" + ",".join(specs[:-1]), 1000)

    assert most is not None
    assert len(most) == ranges.MAX_RANGES
    assert ranges.parse_range("bytes=" + ",".join(specs), 1000) is None


def test_an_over_long_field_is_ignored():
    """RFC 9110, section 5.4: no limit is prescribed."""
    fits = "bytes=0-1" + "," * (ranges.MAX_LENGTH - 9)

    assert ranges.parse_range(fits, 10) == [(0, 2)]
    assert ranges.parse_range(fits + ",", 10) is None


def test_numbers_of_any_length_are_read():
    """RFC 9110, section 14.1.2: the grammar sets no limit."""
    many = "9" * 1500
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)
    try:
        assert ranges.parse_range(f"bytes=5-{many}", 10) == [(5, 10)]
        assert ranges.parse_range(f"bytes=-{many}", 10) == [(0, 10)]
        assert ranges.parse_range(f"bytes={many}-", 10) == []
        assert ranges.parse_range(f"bytes={many}-{many}", 10) == []
        assert ranges.parse_range(f"bytes={many}-{many[:-1]}8", 10) is None
        assert ranges.parse_range("bytes=" + "0" * 1500 + "5-6", 10) == [(5, 7)]
    finally:
        sys.set_int_max_str_digits(limit)


def test_a_hostile_field_is_read_in_linear_time():
    """Else it would not come to its end in the time that any test has."""
    for value in ("bytes=" + "9" * 2**22, "bytes=" + ",0-" * 2**20, "bytes=" + '"' * 2**22):
        assert ranges.parse_range(value, 10) is None


SPECS = st.one_of(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda ends: f"{ends[0]}-{sum(ends)}"),
    st.integers(0, 40).map("{}-".format),
    st.integers(0, 40).map("-{}".format),
)


def naive(specs, size):
    """The offsets that each spec asks for, without slices."""
    for spec in specs:
        first, last = spec.split("-")
        if not first:
            yield {offset for offset in range(size) if offset >= size - int(last)}
        else:
            yield {
                offset
                for offset in range(size)
                if offset >= int(first) and (not last or offset <= int(last))
            }


@given(st.lists(SPECS, min_size=1, max_size=8), st.integers(1, 40))
def test_the_slices_hold_the_bytes_asked_for_and_each_once(specs, size):
    """RFC 9110, sections 14.1.2 and 15.3.7.2."""
    slices = ranges.parse_range("bytes=" + ", ".join(specs), size)

    assert slices is not None
    offsets = [offset for start, stop in slices for offset in range(start, stop)]
    wanted = list(naive(specs, size))
    assert sorted(offsets) == sorted(set().union(*wanted))
    assert all(0 <= start < stop <= size for start, stop in slices)
    assert not {start for start, _ in slices} & {stop for _, stop in slices}
    places = [
        min(
            place
            for place, some in enumerate(wanted)
            if start in some or some & {*range(start, stop)}
        )
        for start, stop in slices
    ]
    assert places == sorted(places)


@given(st.text(alphabet='bytes=0123456789-, \t"x', max_size=40), st.integers(0, 100))
def test_no_text_breaks_the_range_parser(value, size):
    """RFC 9110, section 14.2."""
    for text in (value, "bytes=" + value):
        for start, stop in ranges.parse_range(text, size) or []:
            assert 0 <= start < stop <= size


def test_content_range_counts_the_last_byte_in():
    """RFC 9110, section 14.4."""
    assert ranges.content_range(42, 1234, 1234) == "bytes 42-1233/1234"


def test_an_unsatisfied_range_gives_the_size():
    """RFC 9110, section 14.4."""
    assert ranges.unsatisfied_range(1234) == "bytes */1234"


def test_the_multipart_body_is_laid_out_as_the_specification_shows():
    """RFC 9110, section 14.6."""
    layout = ranges.multipart([(500, 1000), (7000, 8000)], 8000, "application/pdf", "SEP")

    assert layout.content_type == "multipart/byteranges; boundary=SEP"
    assert layout.parts == (
        (
            b"--SEP\r\nContent-Type: application/pdf\r\nContent-Range: bytes 500-999/8000\r\n\r\n",
            500,
            1000,
        ),
        (
            b"\r\n--SEP\r\nContent-Type: application/pdf\r\n"
            b"Content-Range: bytes 7000-7999/8000\r\n\r\n",
            7000,
            8000,
        ),
    )
    assert layout.tail == b"\r\n--SEP--\r\n"


def test_a_part_of_an_image_without_a_type_has_none():
    """RFC 9110, section 14.6."""
    layout = ranges.multipart([(0, 1), (4, 5)], 8, None, "SEP")

    assert layout.parts[0][0] == b"--SEP\r\nContent-Range: bytes 0-0/8\r\n\r\n"


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(100, 200)), min_size=1, max_size=5))
def test_the_length_is_that_of_the_whole_body(slices):
    """RFC 9110, section 14.6."""
    image = bytes(200)
    layout = ranges.multipart(slices, 200, "image/png", "SEP")

    body = b"".join(head + image[start:stop] for head, start, stop in layout.parts) + layout.tail

    assert layout.length == len(body)


@pytest.mark.parametrize(
    ("value", "far"),
    [
        (None, False),
        ("bytes=0-", False),
        (f"bytes={10 + ranges.NEAR}-", False),
        (f"bytes={11 + ranges.NEAR}-", True),
        ("bytes=-1", True),
        ("bytes=0-0,-1", False),
        ("bytes=x", False),
        (f"bytes={3 * ranges.NEAR}-", False),
    ],
)
def test_a_range_is_far_if_all_of_it_is(value, far):
    environ = {"REQUEST_METHOD": "GET"} | ({"HTTP_RANGE": value} if value else {})

    assert ranges.is_far(environ, 10, 3 * ranges.NEAR) == far
    assert not ranges.is_far(environ, 10, None)
    assert not ranges.is_far(environ | {"REQUEST_METHOD": "HEAD"}, 10, 3 * ranges.NEAR)
