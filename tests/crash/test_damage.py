"""Entries that were damaged or put in each other's place after they were stored.

Promise 1 of the design: an entry found damaged leaves the cache, and the
request becomes a miss.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachemw import names
from cachemw.drivers import _records
from cachemw.web.respond import BLOCK

from .checks import assert_sound, opened
from .origin import body, download, image_id

#: Safe as a file name, with a length; not safe and its record aside
#: (on ext4); not safe and large.
NUMBERS = (4, 3, 7)

STORED = "fwd=uri-miss; stored"


@pytest.fixture(params=NUMBERS)
def number(request):
    return request.param


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


def stored(app, number):
    """Store an image. :return: its file."""
    assert download(app, number).cache_status == STORED
    answer = download(app, number)
    assert answer.cache_status == "hit"
    answer.assert_right(number)
    return Path(app.cache.driver.get_image_filepath(image_id(number)))


def assert_healed(app, number):
    """What is right comes from the disk, and the rest from the origin."""
    before = app.app.calls[number]
    answer = download(app, number)
    answer.assert_right(number)
    assert answer.cache_status == "hit"
    assert app.app.calls[number] == before + 1


def assert_miss_and_mended(app, number):
    """The origin is asked, the bytes are right, and the next request is a hit."""
    before = app.app.calls[number]
    answer = download(app, number)
    answer.assert_right(number)
    assert answer.cache_status == STORED
    assert app.app.calls[number] == before + 1
    again = download(app, number)
    again.assert_right(number)
    assert again.cache_status == "hit"
    assert app.app.calls[number] == before + 1


def invalid_reason(app, number):
    (reason,) = [
        image["reason"]
        for image in app.cache.driver.get_invalid_images()
        if image["image_id"] == image_id(number)
    ]
    return reason


def flip_a_bit(path, at):
    """As a disk does it: the file's times do not tell."""
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut_a_byte(path):
    """As a disk does it: the file's times do not tell."""
    status = path.stat()
    os.truncate(path, status.st_size - 1)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("verify_reads", ["size", "first", "always"])
def test_cut_entry_is_noticed_at_once(directory, driver_name, number, verify_reads):
    with opened(directory, driver_name, verify_reads=verify_reads) as app:
        cut_a_byte(stored(app, number))

        assert_miss_and_mended(app, number)

        if number != 3:  # the record aside is tied to the length: not known as ours any more
            size = len(body(number))
            assert invalid_reason(app, number) == f"{size - 1} bytes long instead of {size}"
    assert_sound(directory, driver_name, NUMBERS)


@pytest.mark.parametrize("at", [0, -1])
@pytest.mark.parametrize("verify_reads", ["first", "always"])
def test_flipped_bit_is_noticed_by_a_new_process(directory, driver_name, number, verify_reads, at):
    with opened(directory, driver_name) as app:
        flip_a_bit(stored(app, number), at % len(body(number)))

    with opened(directory, driver_name, verify_reads=verify_reads) as app:
        app.app.calls[number] = 0
        if verify_reads == "always" and at % len(body(number)) >= BLOCK:
            assert_healed(app, number)
        assert_miss_and_mended(app, number)

        assert "do not match" in invalid_reason(app, number)
    assert_sound(directory, driver_name, NUMBERS)


def test_flipped_bit_is_noticed_after_a_good_hit(directory, driver_name, number):
    with opened(directory, driver_name, verify_reads="always") as app:
        path = stored(app, number)
        assert download(app, number).cache_status == "hit"
        flip_a_bit(path, 0)

        assert_miss_and_mended(app, number)

        assert "do not match" in invalid_reason(app, number)


def test_first_verifies_once(directory, driver_name, number):
    """What ``first`` means: a later flip that the times do not tell is not looked for."""
    with opened(directory, driver_name, verify_reads="first") as app:
        path = stored(app, number)
        flip_a_bit(path, 0)

        assert download(app, number).body != body(number)


def test_first_verifies_a_file_again_that_was_written_to(directory, driver_name):
    with opened(directory, driver_name, verify_reads="first") as app:
        path = stored(app, 4)
        flip_a_bit(path, 0)
        os.utime(path, ns=(0, 10**18))

        assert_miss_and_mended(app, 4)


def record_places(directory, path):
    """Give what reads and what writes the raw record of an entry, where it is."""
    aside = directory / ".records" / path.name
    if aside.exists():
        return aside.read_bytes, aside.write_bytes
    return (
        lambda: os.getxattr(path, _records.ATTRIBUTE),
        lambda data: os.setxattr(path, _records.ATTRIBUTE, data),
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:8] + bytes([data[8] ^ 1]) + data[9:],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b'"size":', b'"seize":'),
        lambda data: data.replace(b"application/octet-stream", b"application/octet-strain"),
        lambda data: os.urandom(len(data)),
    ],
    ids=["head", "cut", "halved", "empty", "key", "value", "noise"],
)
def test_damaged_record_is_no_record(directory, driver_name, number, damage):
    with opened(directory, driver_name) as app:
        read, write = record_places(directory, stored(app, number))
        data = read()
        assert damage(data) != data
        write(damage(data))

        answer = download(app, number)
        answer.assert_right(number)
        # A file whose name is its id, and that the app's checksum confirms, is kept.
        assert answer.cache_status in (STORED, "hit; detail=adopted")
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert app.app.calls[number] == 2
        assert download(app, number).cache_status == "hit"
    assert_sound(directory, driver_name, NUMBERS)


def test_record_of_another_id_is_not_believed(directory, driver_name, number):
    with opened(directory, driver_name) as app:
        path, other = stored(app, number), stored(app, 10)
        data = os.getxattr(other, _records.ATTRIBUTE)
        path.write_bytes(other.read_bytes())
        os.setxattr(path, _records.ATTRIBUTE, data)

        assert_miss_and_mended(app, number)
        assert download(app, 10).cache_status == "hit"
    assert_sound(directory, driver_name, NUMBERS)


def test_entry_in_the_place_of_another_is_not_served(directory, driver_name, number):
    """Renamed over each other, with their records."""
    with opened(directory, driver_name) as app:
        path, other = stored(app, number), stored(app, 10)
        os.replace(other, path)

        assert_miss_and_mended(app, number)
        answer = download(app, 10)
        answer.assert_right(10)
        assert answer.cache_status == STORED
    assert_sound(directory, driver_name, (*NUMBERS, 10))


def make_fifo(path, elsewhere):
    os.mkfifo(path)


def make_symlink(path, elsewhere):
    path.symlink_to(elsewhere)


def make_dangling_symlink(path, elsewhere):
    path.symlink_to(elsewhere.parent / "nothing")


def make_hard_link(path, elsewhere):
    os.link(elsewhere, path)


@pytest.mark.parametrize(
    "replace", [make_fifo, make_symlink, make_dangling_symlink, make_hard_link]
)
def test_entry_replaced_by_something_else_is_a_miss(
    directory, driver_name, number, replace, tmp_path
):
    """What it was replaced by is neither served, nor waited for, nor written to."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody else's")
    with opened(directory, driver_name) as app:
        path = stored(app, number)
        path.unlink()
        replace(path, elsewhere)

        if replace is make_hard_link and names.is_safe_name(path.name):
            # A file like one of another program's: compared with the app's answer.
            download(app, number).assert_right(number)
            assert download(app, number).cache_status == "hit"
        else:
            assert_miss_and_mended(app, number)
    assert elsewhere.read_bytes() == b"somebody else's"
    assert set(os.listxattr(elsewhere)) <= {"user.error", "user.cachemw.id"}
    assert_sound(directory, driver_name, NUMBERS)


def test_directory_in_the_place_of_an_entry_costs_its_caching_only(directory, driver_name, number):
    with opened(directory, driver_name) as app:
        path = stored(app, number)
        path.unlink()
        path.mkdir()
        (path / "file").write_bytes(b"")

        for _ in range(2):
            download(app, number).assert_right(number)
        assert app.app.calls[number] == 3
        (path / "file").unlink()
        path.rmdir()
        assert_miss_and_mended(app, number)
    assert_sound(directory, driver_name, NUMBERS)


@pytest.mark.parametrize(
    "replace", [make_fifo, make_symlink, make_dangling_symlink, make_hard_link]
)
def test_something_else_in_the_place_of_a_fill_is_replaced(
    directory, driver_name, number, replace, tmp_path
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody else's")
    with opened(directory, driver_name) as app:
        replace(
            Path(app.cache.driver.get_image_filepath(image_id(number), "incomplete")), elsewhere
        )

        answer = download(app, number)

        answer.assert_right(number)
        assert answer.cache_status == STORED
        assert download(app, number).cache_status == "hit"
    assert elsewhere.read_bytes() == b"somebody else's"
    assert_sound(directory, driver_name, NUMBERS)
