"""A repair is killed at each of its steps; done again, it ends as if it had not been."""

from __future__ import annotations

import json
import os

import pytest

from cachemw import ImageCache
from cachemw.core import check
from cachemw.core.config import Settings

from . import damage, steps
from .test_steps import copy_file

#: Damage that is done together, and what the repair is seen to do.
GROUPS = {
    "of entries": (
        (
            "entry_cut",
            "entry_flipped",
            "entry_touched",
            "entry_with_record_aside_changed",
            "variant_flipped",
            "entry_stray",
            "row_missing",
            "row_stray",
            "total_wrong",
        ),
        "rename cat",
    ),
    "of what is beside them": (
        (
            "record_damaged",
            "half_records",
            "stray_sums",
            "sums_flipped",
            "old_fill",
            "strays_of_fills",
            "stray_in_the_queue",
            "modes",
            "index_no_database",
        ),
        "chmod",
    ),
    "of the whole": (
        (
            "link_in_the_place_of_the_lock",
            "link_in_the_place_of_a_folder",
            "dangling_link_in_each_folder",
            "large_entry_flipped",
            "index_gone",
        ),
        "mkdir invalid",
    ),
}


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setattr(check, "SETTLE", 0.0)


def do_damage(directory, driver_name, kinds):
    every = {**damage.OF_FILES, **(damage.OF_INDEX if driver_name == "sqlite" else {})}
    for kind in kinds:
        if kind in every:
            every[kind](directory)


def copy(template, directory):
    """Copy a directory with all that is wrong with it."""
    for here, folders, files in os.walk(template):
        there = directory / os.path.relpath(here, template)
        there.mkdir()
        there.chmod(os.stat(here).st_mode & 0o7777)
        for name in (*folders, *files):
            source = os.path.join(here, name)
            if os.path.islink(source):
                (there / name).symlink_to(os.readlink(source))
            elif name in files:
                copy_file(source, there / name)
                (there / name).chmod(os.stat(source).st_mode & 0o7777)


def checked(directory, driver_name, repair):
    settings = {"dir": str(directory), "driver": driver_name, "driver_fallback": False}
    cache = ImageCache.to_look_at(Settings.from_options(settings))
    try:
        return cache.check(repair)
    finally:
        cache.close()


@pytest.mark.parametrize("group", GROUPS)
def test_repair_can_be_done_again(zygote, driver_name, group, tmp_path):
    kinds, expected = GROUPS[group]
    template = tmp_path / "template"
    damage.fill(template, driver_name)
    do_damage(template, driver_name, kinds)
    lost = set().union(*(damage.LOST.get(kind, set()) for kind in kinds))

    def repair(at, when):
        directory = tmp_path / f"cache-{at}-{when}"
        copy(template, directory)
        found = tmp_path / "steps"
        arguments = ("repair", str(directory), driver_name, at, when, str(found))
        code = zygote.run("tests.crash.steps:run", *arguments)
        return code, directory, found

    code, _, found = repair(-1, "")
    assert code == 0, zygote.log.read_text()[-5000:]
    names = json.loads(found.read_text())
    assert any(name.startswith(expected) for name in names), names
    moments = [(at, steps.BEFORE) for at in range(len(names))]
    halves = ("pwrite", "write")
    moments += [(at, steps.HALF) for at, name in enumerate(names) if name.split()[0] in halves]
    for at, when in moments:
        code, directory, _ = repair(at, when)
        try:
            assert code == -9
            assert checked(directory, driver_name, repair=True).is_mended
            assert checked(directory, driver_name, repair=False).is_clean
            assert damage.intact(directory, driver_name) == set(damage.IMAGES) - lost
        except BaseException as exc:
            exc.add_note(f"killed {when} step {at} of {names}; directory {directory}")
            raise
