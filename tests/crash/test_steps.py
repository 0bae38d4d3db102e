"""A process dies at each step of each operation; the next one finds a sound cache.

The steps are those that a first run of the operation makes. A power cut is
not tried here: what was written before the kill is there after it.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest

from cachemw import names

from . import steps
from .checks import assert_sound, entry_files, opened
from .origin import body, download, image_id

#: Operations with a step that must be among those found, so that the finding is seen to work.
EXPECTED = {
    "commit": "rename image-6",
    "commit durable": "fsync",
    "commit with the record aside": "rename .",
    "commit of a large image": "pwrite",
    "replace": "rename image-4",
    "replace with the record aside": "rename .image-8",
    "replace with the record aside durable": "rename .image-8",
    "replace an id that is no name, with the record aside": "rename ._",
    "abort": "rename image-6",
    "leave": "ftruncate",
    "leave and go on": "rename ._",
    "leave and begin anew": "rename .",
    "decline": "unlink image-6",
    "delete while it is filled": "unlink image-6",
    "adopt": "xattr_set",
    "invalidate": "rename image-4",
    "invalidate with the record aside": "unlink image-8",
    "delete": "unlink image-4",
    "delete all": "unlink image-10",
    "evict": "unlink image-0",
    "clean": "unlink left-over",
    "hits": "",
    "start": "mkdir incomplete",
    "index lost": "",
    "index broken": "",
    "lock lost": "open .lock",
}

#: What these do not touch is there afterwards.
KEEPS_BYSTANDERS = set(EXPECTED) - {"delete all", "start"}


def child_operation(operation):
    return "start" if operation.split(" ")[0] in ("start", "index", "lock") else operation


def prepare(directory, driver, operation):
    """Make the directory that the operation finds."""
    directory.mkdir()
    if operation == "start":
        return
    (directory / names.entry_name(image_id(steps.ADOPTABLE))).write_bytes(body(steps.ADOPTABLE))
    with opened(directory, driver, **steps.OPTIONS) as app:
        for number in (*steps.EVICTABLE, steps.STORED, steps.STORED_ASIDE, *steps.BYSTANDERS):
            assert download(app, number).cache_status.endswith("stored")
            make_older(app.cache.driver, number)
    (directory / "incomplete" / "left-over").write_bytes(b"half of it")
    (directory / "invalid" / "wrong").write_bytes(b"wrong bytes")
    (directory / ".records" / "orphan").write_bytes(b"of no entry")
    if operation == "index lost":
        (directory / "cache.db").unlink(missing_ok=True)
    if operation == "index broken" and driver == "sqlite":
        (directory / "cache.db").write_bytes(b"not a database" * 1000)
    if operation in ("index broken", "lock lost"):
        (directory / ".lock").unlink()


def make_older(driver, number):
    """Set an access time that grows with the position among the stored images."""
    order = (*steps.EVICTABLE, steps.STORED, steps.STORED_ASIDE, *steps.BYSTANDERS)
    when = 1_000_000 + order.index(number)
    path = driver.get_image_filepath(image_id(number))
    os.utime(path, ns=(when * 10**9, os.stat(path).st_mtime_ns))
    if driver.name == "sqlite":
        name = names.entry_name(image_id(number))
        driver.index._run(
            lambda c: c.execute("UPDATE entries SET accessed = ? WHERE name = ?", (when, name))
        )


def find_steps(zygote, template, driver, operation, tmp_path):
    """Run the operation to its end. :return: its steps."""
    directory, found = tmp_path / "recorded", tmp_path / "steps"
    copy(template, directory)
    code = run(zygote, directory, driver, operation, -1, "", found)
    assert code == 0, zygote.log.read_text()[-5000:]
    return json.loads(found.read_text())


def run(zygote, directory, driver, operation, at, when, found):
    return zygote.run(
        "tests.crash.steps:run",
        child_operation(operation),
        str(directory),
        driver,
        at,
        when,
        str(found),
    )


def copy(template, directory):
    """Copy a directory with times and attributes; reading does not touch the access times."""
    shutil.rmtree(directory, ignore_errors=True)
    for here, _, files in os.walk(template):
        there = directory / os.path.relpath(here, template)
        there.mkdir(mode=0o700)
        for name in files:
            copy_file(os.path.join(here, name), there / name)


def copy_file(source, target):
    fd = os.open(source, os.O_RDONLY | os.O_NOATIME)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        target.write_bytes(file.read())
        target.chmod(0o600)
        for attribute in os.listxattr(fd):
            os.setxattr(target, attribute, os.getxattr(fd, attribute))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("operation", EXPECTED)
def test_cache_is_sound_after_each_step(zygote, driver_name, operation, tmp_path, request):
    template, directory = tmp_path / "template", tmp_path / "cache"
    prepare(template, driver_name, operation)
    names_of_steps = find_steps(zygote, template, driver_name, operation, tmp_path)
    assert len(names_of_steps) > 1
    assert any(name.startswith(EXPECTED[operation]) for name in names_of_steps), names_of_steps

    moments = [(at, steps.BEFORE) for at in range(len(names_of_steps))]
    moments += [
        (at, steps.HALF)
        for at, name in enumerate(names_of_steps)
        if name.split(" ")[0] in ("pwrite", "write")
    ]
    # Nothing happens between one step and the next, so "after" is the next one's "before".
    every = request.config.getoption("--stress")
    last = len(names_of_steps) - 1
    moments += [(at, steps.AFTER) for at in range(0 if every else last, last + 1)]
    for at, when in moments:
        copy(template, directory)
        try:
            assert run(zygote, directory, driver_name, operation, at, when, tmp_path / "x") == -9
            check(directory, driver_name, operation, clean_first=bool(at % 2))
        except BaseException as exc:
            exc.add_note(f"killed {when} step {at} of {names_of_steps}; directory {directory}")
            raise


def check(directory, driver, operation, clean_first):
    if operation in KEEPS_BYSTANDERS:
        left = entry_files(directory)
        for number in steps.BYSTANDERS:
            assert left[names.entry_name(image_id(number))] == len(body(number))
    numbers = (
        *steps.BYSTANDERS,
        *steps.EVICTABLE,
        steps.STORED,
        steps.STORED_ASIDE,
        steps.FRESH,
        steps.FRESH_ASIDE,
        steps.ADOPTABLE,
    )
    hits = assert_sound(directory, driver, numbers, clean_first, **steps.OPTIONS)
    if operation in KEEPS_BYSTANDERS:
        assert set(hits) >= set(steps.BYSTANDERS)
