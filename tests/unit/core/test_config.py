"""Options: what they take, what they refuse, and what they say then."""

import logging
import math
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw.core import presets
from cachemw.core.config import PREFIX, Settings, parse_bool, parse_duration, parse_size
from cachemw.errors import ConfigError

OPTIONS = {option.name: option for option in Settings.options()}

SIZES = ["max_size", "max_image_size", "min_free"]

#: For each kind of option, values that it does not take.
BAD = {
    "size": [
        "",
        "-1",
        "1.5.2",
        "ten",
        "5 apples",
        "1e9",
        "5KB",
        "5MiBs",
        "0x10",
        -1,
        1.5,
        True,
        [],
    ],
    "duration": ["", "-1", "1w", "soon", "5 minutes", "1e3", -1, -0.5, math.nan, True, []],
    "off or a duration": ["", "-1", "on", True, []],
    "yes or no": ["", "maybe", "2", 2, 0, []],
    "directory": ["", "  ", "a\0b", b"bytes", 5, []],
    "off or a file": ["", "  ", "a\0b", "/logs/", b"bytes", 5, []],
    "name": ["", "two words", "a/b", "sqlite,xattr", 5, []],
    "regular expressions, one a line": ["(", "/images/\n[", "(?P<1>x)", "*"],
    "list of words": [["image/png", 5]],
    "off, app or python:MODULE:FUNCTION": [
        "",
        "on",
        "python:",
        "python:a",
        "a:b",
        "python:a:b:c",
        5,
    ],
    "path with {image_id}": [
        "x",
        "/x",
        "/{image_id}/{image_id}",
        "/{image_id}?x",
        "/ {image_id}",
        5,
    ],
    "file:PATH or env:NAME": ["token-5", "file:", "env:", "env:A B", "Authorization: x", 5],
    "number": ["", "-1", "65", "1.5", "many", 1.0, -1, 65, True, []],
    "finish, discard or a percentage": ["", "50", "101%", "-1%", "half", "no", 5, -0.5, []],
    "text without blanks": [],  # see test_a_secret_is_not_shown
}

#: Kinds of which a mistaken value may be the credential itself.
SECRET = {"file:PATH or env:NAME"}

GOOD = {
    "size": [("0", 0), ("5KiB", 5120), (7, 7)],
    "duration": [("0", 0.0), ("2m", 120.0), (1.5, 1.5)],
    "off or a duration": [(" Off", 0.0), ("30d", 2592000.0), (5, 5.0)],
    "yes or no": [("no", False), ("TRUE", True), (False, False)],
    "directory": [("/a/../b", "/b"), (Path("/c"), "/c")],
    "name": [(" xattr ", "xattr"), ("their.driver-2", "their.driver-2")],
    "regular expressions, one a line": [("/a\n\n  /b ", ("/a", "/b")), (["/a"], ("/a",))],
    "off, app or python:MODULE:FUNCTION": [
        (" App", "app"),
        ("OFF", "off"),
        ("python:a.b:c", "python:a.b:c"),
    ],
    "finish, discard or a percentage": [
        ("Finish", 0.0),
        ("discard", math.inf),
        ("50%", 0.5),
        (" 12.5 % ", 0.125),
    ],
    "text without blanks": [(" s3cret:/+= ", "s3cret:/+="), ("", "")],
    "off or a file": [
        (" Off", ""),
        ("/var/log/images.log", "/var/log/images.log"),
        ("~/log", os.path.expanduser("~/log")),
        (Path("/log"), "/log"),
    ],
    "path with {image_id}": [("", ""), (" /a/{image_id} ", "/a/{image_id}")],
    "file:PATH or env:NAME": [("", ""), ("env:TOKEN", "env:TOKEN"), ("file:/a/../b", "file:/b")],
    "number": [("0", 0), (" 12 ", 12), (64, 64)],
    "list of words": [("a, b\nc", ("a", "b", "c")), (["a", ""], ("a",)), ("", ())],
}


def cases(table):
    return [
        pytest.param(option.name, case, id=f"{option.name}-{case!r}")
        for option in OPTIONS.values()
        for case in table.get(option.kind, [])
    ]


def read(name, value):
    return getattr(Settings.from_options({"dir": "/cache", name: value}), name)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_has_a_kind_a_line_of_documentation_and_a_readable_default(name):
    option = OPTIONS[name]

    assert option.kind
    assert option.doc
    assert "\n" not in option.doc
    assert option.scope in ("storage", "filter", "manage")
    if name == "dir":
        assert option.default is None
    elif option.default != "max_size":
        assert read(name, option.default) == getattr(Settings.from_options({"dir": "/x"}), name)


def test_every_kind_is_tried_here():
    kinds = {option.kind for option in OPTIONS.values()}

    assert {kind for kind in kinds if not kind.startswith("one of ")} == set(BAD) == set(GOOD)


def test_the_defaults_are_those_of_the_reference():
    settings = Settings.from_options({"dir": "/cache"})

    assert (settings.driver, settings.driver_fallback) == ("sqlite", True)
    assert settings.max_size == settings.max_image_size == 10 * 2**30
    assert settings.min_free == 2**30
    assert settings.stall_time == 86400
    assert (settings.verify_reads, settings.durability) == ("size", "data")
    assert (settings.preset, settings.freshness) == ("any", "http")
    assert (settings.routes, settings.credential_headers) == ((), ())


@pytest.mark.parametrize(("name", "case"), cases(GOOD))
def test_an_option_takes_ini_strings_and_python_values(name, case):
    value, expected = case

    assert read(name, value) == expected


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_a_bad_value_is_refused_with_option_value_and_what_was_expected(name, value):
    with pytest.raises(ConfigError) as caught:
        read(name, value)

    message = str(caught.value)
    if OPTIONS[name].kind in SECRET:
        assert f"option {name!r} has a value that is not shown: expected " in message
        assert str(value) not in message.replace("file:PATH or env:NAME", "")
    else:
        assert f"option {name!r} has the value {value!r}: expected " in message
    assert message.isprintable()


@pytest.mark.parametrize(
    "name", [name for name, option in OPTIONS.items() if option.kind.startswith("one of ")]
)
def test_a_choice_takes_its_words_in_any_case_and_no_others(name):
    words = OPTIONS[name].kind.removeprefix("one of ").split(", ")
    for word in words:
        assert read(name, word) == read(name, f" {word.upper()} ") == word
    for value in ("", "other", 5, None.__class__, []):
        with pytest.raises(ConfigError) as caught:
            read(name, value)
        assert f"option {name!r} has the value {value!r}: expected {words[0]}" in str(caught.value)


def test_none_means_not_given():
    settings = Settings.from_options({"dir": "/cache", "max_size": None, "driver": None})

    assert settings == Settings.from_options({"dir": "/cache"})


@pytest.mark.parametrize("options", [{}, {"dir": None}])
def test_the_directory_is_required(options):
    with pytest.raises(ConfigError, match="option 'dir' is missing"):
        Settings.from_options(options)


def test_the_largest_image_follows_the_bound_of_the_cache():
    assert Settings.from_options({"dir": "/cache", "max_size": "5KiB"}).max_image_size == 5120
    both = Settings.from_options({"dir": "/cache", "max_size": "5KiB", "max_image_size": "1KiB"})
    assert both.max_image_size == 1024


def test_a_home_and_a_relative_directory_are_made_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/operator")
    monkeypatch.chdir(tmp_path)

    assert read("dir", "~/cache") == "/home/operator/cache"
    assert read("dir", "cache") == str(tmp_path / "cache")


# Names


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_sizes", "max_size"),
        ("maxsize", "max_size"),
        ("image_cache_max_size", "max_size"),
        ("drver", "driver"),
        ("stall-time", "stall_time"),
        ("Dir", "dir"),
    ],
)
def test_a_misspelt_option_is_answered_with_the_one_that_is_meant(name, meant):
    with pytest.raises(ConfigError) as caught:
        Settings.from_options({"dir": "/cache", name: "1"})

    assert str(caught.value) == f"unknown option {name!r}: did you mean {meant!r}?"


def test_a_name_like_no_other_is_answered_with_all():
    with pytest.raises(ConfigError) as caught:
        Settings.from_options({"dir": "/cache", "zzzzzz": "1"})

    message = str(caught.value)
    assert message.startswith("unknown option 'zzzzzz': expected one of dir, driver, ")
    assert all(name in message for name in OPTIONS)


def test_the_default_section_has_our_names_with_a_prefix():
    settings = Settings.from_conf(
        {
            "here": "/etc",
            "__file__": "/etc/cache.ini",
            "dir": "/somebody/elses",
            "driver": "somebody's",
            f"{PREFIX}dir": "/cache",
            f"{PREFIX}driver": "xattr",
            f"{PREFIX}max_size": "5KiB",
            f"{PREFIX}stall_time": "10",
        },
        {},
    )

    assert (settings.dir, settings.driver) == ("/cache", "xattr")
    assert (settings.max_size, settings.stall_time) == (5120, 10)


def test_our_own_section_goes_before_the_default_section():
    settings = Settings.from_conf(
        {f"{PREFIX}dir": "/cache", f"{PREFIX}max_size": "1KiB"}, {"max_size": "2KiB"}
    )

    assert (settings.dir, settings.max_size) == ("/cache", 2048)


def test_the_name_of_our_section_is_not_an_option():
    """Swift's loader hands it over with the options."""
    settings = Settings.from_conf({}, {"__name__": "cache", "dir": "/cache"})

    assert settings.dir == "/cache"


def test_an_unknown_name_in_the_default_section_is_warned_of(caplog):
    """Glance has more options of that prefix."""
    with caplog.at_level(logging.WARNING):
        Settings.from_conf({f"{PREFIX}dir": "/cache", f"{PREFIX}sqlite_db": "cache.db"}, {})

    assert "image_cache_sqlite_db is not an option" in caplog.text


@pytest.mark.parametrize(
    ("shared", "own", "message"),
    [
        ({f"{PREFIX}dir": "/c"}, {f"{PREFIX}max_size": "1"}, "did you mean 'max_size'"),
        ({f"{PREFIX}dir": "/c"}, {"colour": "red"}, "unknown option 'colour'"),
        (
            {f"{PREFIX}dir": "/c", f"{PREFIX}max_size": "lots"},
            {},
            "'max_size' has the value 'lots'",
        ),
        ({"dir": "/c"}, {}, "'dir' is missing"),
    ],
)
def test_a_mistake_in_either_section_stops_the_start(shared, own, message):
    with pytest.raises(ConfigError, match=message):
        Settings.from_conf(shared, own)


def test_only_the_filters_own_options_can_be_changed_over_a_cache():
    settings = Settings.from_options({"dir": "/cache", "routes": "/a"})

    changed = settings.changed({"routes": "/b", "freshness": "immutable"})
    assert (changed.dir, changed.routes, changed.freshness) == ("/cache", ("/b",), "immutable")
    assert settings.routes == ("/a",)
    for options, message in (
        ({"max_size": "1KiB"}, "'max_size' belongs to the ImageCache"),
        ({"route": "/b"}, "did you mean 'routes'"),
        ({"routes": "("}, "option 'routes' has the value"),
    ):
        with pytest.raises(ConfigError, match=message):
            settings.changed(options)


# Sizes, durations, switches


@given(st.integers(0, 2**70), st.sampled_from(["", "K", "M", "G", "T"]), st.booleans())
def test_a_size_is_its_number_times_a_power_of_1024(number, unit, long):
    factor = 1024 ** " KMGT".index(unit or " ")
    text = f"{number}{unit}{'iB' if unit and long else ''}"

    assert parse_size(text) == number * factor
    assert parse_size(f"  {number} {text.removeprefix(str(number)).lower()} ") == number * factor
    assert parse_size(number) == parse_size(str(number)) == number


@given(st.integers(0, 2**40))
@example(1536)
def test_a_size_written_out_reads_back(size):
    for unit, factor in (("KiB", 2**10), ("MiB", 2**20)):
        assert parse_size(f"{size / factor:.30f}{unit}") == size


@given(st.floats(0, 1e9), st.sampled_from(["", "s", "m", "h", "d"]))
def test_a_duration_is_its_number_times_its_unit(number, unit):
    seconds = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    written = f"{number:.6f}"

    assert parse_duration(f"{written}{unit}") == float(written) * seconds
    assert parse_duration(f" {written} {unit.upper()} ") == float(written) * seconds
    assert parse_duration(number) == number


def refusal(parse, value):
    """What a reader says to a value; ``None``: it takes it."""
    try:
        parse(value)
    except ValueError as exc:
        return str(exc)
    return None


@given(st.text() | st.integers() | st.floats() | st.none() | st.binary())
def test_what_is_refused_is_refused_with_what_was_expected(value):
    for parse in (parse_size, parse_duration, parse_bool):
        assert (refusal(parse, value) or "expected ").startswith("expected ")


def test_switches_take_what_pastedeploy_takes():
    """paste.deploy.converters.asbool."""
    for word in ("true", "yes", "on", "y", "t", "1", "Yes "):
        assert parse_bool(word) is True
    for word in ("false", "no", "off", "n", "f", "0", " NO"):
        assert parse_bool(word) is False


def test_every_option_is_in_a_table_that_cannot_be_changed():
    settings = Settings.from_options({"dir": "/cache"})

    with pytest.raises(AttributeError):
        settings.max_size = 1
    assert settings.content_types == presets.IMAGE_TYPES


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("content_types", 5),
        ("credential_headers", 5),
        ("routes", 5),
        ("routes", [5]),
        ("stall_time", "9" * 400),
        ("stall_time", math.inf),
        ("driver", 5),
        ("dir", 5),
    ],
)
def test_value_of_the_wrong_kind_is_a_clear_error(name, value):
    with pytest.raises(ConfigError, match=f"option '{name}' has the value"):
        Settings.from_options({"dir": "/tmp", name: value})


def test_huge_size_is_exact():
    digits = "9" * 400

    assert Settings.from_options({"dir": "/tmp", "max_size": digits}).max_size == int(digits)


@pytest.mark.parametrize("value", ["se cret", "sécret", 7, "se\ncret"])
def test_a_secret_is_not_shown(value):
    with pytest.raises(ConfigError, match="a value that is not shown: expected letters") as caught:
        Settings.from_options({"dir": "/x", "admin_token": value})
    assert str(value) not in str(caught.value)
    assert "S3cret" not in repr(Settings.from_options({"dir": "/x", "admin_token": "S3cret"}))
