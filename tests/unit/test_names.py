"""Ids and the file names they get."""

import hashlib
import os
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cachemw import names

#: Any string, lone surrogates too.
TEXT = st.text(st.characters(categories=None), min_size=1, max_size=40)
#: Strings near the border between safe names and others.
NEARLY = st.text(st.sampled_from("aZ0._-/\0 \n\N{LATIN SMALL LETTER E WITH ACUTE}"), min_size=1)
IDS = TEXT | NEARLY

HOSTILE = [
    "../../etc/passwd",
    "..",
    ".",
    ".lock",
    "a/b",
    "/",
    "/etc/passwd",
    "incomplete",
    "invalid",
    "queue",
    "cache.db",
    "cache.db-wal",
    "cache.db-shm",
    "cache.db-journal",
    "cache.db.old",
    "a\0b",
    "a\nb",
    "name\n",
    " name",
    "-rf",
    "_",
    "x" * 201,
    "x" * 2000,
    "\ud800",
    "\ud83d\ude00",
    "\U0001f600",
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    "e\N{COMBINING ACUTE ACCENT}",
    "\N{FULLWIDTH LATIN SMALL LETTER A}",
    "\N{ARABIC-INDIC DIGIT ONE}",
    names.entry_name("a/b"),
]


@given(st.lists(IDS, unique=True, min_size=2, max_size=6))
@example(HOSTILE)
def test_no_two_ids_share_a_name(ids):
    assert len({names.entry_name(image_id) for image_id in ids}) == len(ids)


@given(IDS)
@example("\ud83d\ude00")
def test_a_name_is_one_plain_component_of_a_path(image_id):
    name = names.entry_name(image_id)

    assert os.path.normpath(os.path.join("/cache", name)) == f"/cache/{name}"
    assert os.path.dirname(f"/cache/{name}") == "/cache"
    assert len(os.fsencode(name)) <= 200
    assert name.isascii()
    assert name.isprintable()
    assert not name.startswith((".", "-"))
    assert name not in names.RESERVED_NAMES
    assert not name.startswith(names.INDEX_NAME)
    assert names.is_entry_name(name)
    assert names.check_image_id(image_id) == image_id


@pytest.mark.parametrize("image_id", HOSTILE, ids=ascii)
def test_a_hostile_id_is_kept_under_its_digest(image_id):
    digest = hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).hexdigest()

    assert not names.is_safe_name(image_id)
    assert names.entry_name(image_id) == f"_{digest}"


@pytest.mark.parametrize(
    "image_id",
    [
        "cat",
        "0",
        "71c675ab-d94f-49cd-a114-e12490b328d9",
        "Debian_12.5-amd64.qcow2",
        "x" * 200,
        "incomplete2",
        "Incomplete",
        "cache",
        "cache-db",
        "a..b",
    ],
)
def test_a_safe_id_is_its_own_name(image_id):
    assert names.entry_name(image_id) == image_id


def test_one_letter_in_two_normal_forms_is_two_images():
    composed = unicodedata.normalize("NFC", "e\N{COMBINING ACUTE ACCENT}")
    decomposed = unicodedata.normalize("NFD", composed)

    assert composed != decomposed
    assert names.entry_name(composed) != names.entry_name(decomposed)


@pytest.mark.parametrize(
    "name",
    [
        *("incomplete", "invalid", "queue", "cache.db", "cache.db-wal", ".lock", ".records"),
        *("", "a b", "_", "_abc", "_" + "g" * 64, "_" + "A" * 64, "_" + "0" * 63),
        "_" + "0" * 64 + "\n",
    ],
)
def test_other_files_of_the_directory_are_no_entries(name):
    assert not names.is_entry_name(name)


@given(st.integers(-(10**30), 10**30))
def test_an_int_stands_for_its_decimal_form(number):
    assert names.check_image_id(number) == str(number)


@pytest.mark.parametrize(
    ("image_id", "message"),
    [
        ("", "image id '': expected 1 to 2000 characters, not 0"),
        ("x" * 2001, r"image id 'x{77}\.\.\.': expected 1 to 2000 characters, not 2001"),
        (None, "image id None: expected a string, not NoneType"),
        (True, "image id True: expected a string, not bool"),
        (b"cat", "image id b'cat': expected a string, not bytes"),
        (1.5, "image id 1.5: expected a string, not float"),
        (10**2000, r"image id '10+\.\.\.': expected 1 to 2000 characters, not 2001"),
        (10**9000, "not an integer of 29898 bits"),
    ],
    ids=lambda value: repr(value)[:20] if not isinstance(value, int) else f"{value % 7}",
)
def test_what_is_no_id_is_named_with_what_was_expected(image_id, message):
    with pytest.raises(ValueError, match=message):
        names.check_image_id(image_id)


def test_the_longest_id_is_taken():
    assert names.check_image_id("x" * 2000) == "x" * 2000
    assert names.check_image_id(10**1999) == "1" + "0" * 1999
