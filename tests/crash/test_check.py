"""Damage of every kind: a check names it, a repair mends it and keeps what is intact.

Through the command, since that is what an operator has.
"""

from __future__ import annotations

import json
import os

import pytest

from cachemw import commands
from cachemw.core import check as core_check

from . import damage


@pytest.fixture(autouse=True)
def _settled(monkeypatch):
    monkeypatch.setattr(core_check, "SETTLE", 0.0)


@pytest.fixture
def directory(driver_name, tmp_path):
    directory = tmp_path / "cache"
    damage.fill(directory, driver_name)
    return directory


@pytest.fixture
def check(directory, driver_name, capsys):
    """Run the command. :return: status and findings that are damage."""

    def run(*arguments):
        settings = ("--set", f"driver={driver_name}", "--set", "driver_fallback=no")
        capsys.readouterr()
        status = commands.main(["check", "--json", "--dir", str(directory), *settings, *arguments])
        report = json.loads(capsys.readouterr().out)
        findings = [finding for finding in report["findings"] if finding["is_damage"]]
        assert report["is_clean"] == (not findings)
        return status, findings

    return run


def snapshot(directory):
    """What there is, but for the databases' companions, which come and go."""
    found = {}
    for here, folders, files in os.walk(directory):
        for name in (*folders, *files):
            path = os.path.join(here, name)
            status = os.lstat(path)
            if not name.startswith("cache.db-"):
                found[path] = (status.st_ino, status.st_mode, status.st_size, status.st_ctime_ns)
    return found


def test_a_sound_directory_is_clean(check, directory, driver_name):
    before = snapshot(directory)

    assert check() == (0, [])
    assert snapshot(directory) == before
    assert check("--repair") == (0, [])
    assert damage.intact(directory, driver_name) == set(damage.IMAGES)


def assert_named_and_mended(check, directory, driver_name, do_damage):
    wrong = do_damage(directory)
    before = snapshot(directory)

    for _ in range(2):
        status, findings = check()
        assert status == 1
        assert wrong <= {finding["name"] for finding in findings}
        assert not any(finding["is_mended"] for finding in findings)
        assert snapshot(directory) == before

    status, findings = check("--repair")
    assert status == 0
    assert wrong <= {finding["name"] for finding in findings}
    assert all(finding["is_mended"] for finding in findings)

    assert check() == (0, [])
    kept = set(damage.IMAGES) - damage.LOST.get(do_damage.__name__, set())
    assert damage.intact(directory, driver_name) == kept
    assert check() == (0, [])


@pytest.mark.parametrize("kind", damage.OF_FILES)
def test_damage_is_named_and_mended(check, directory, driver_name, kind):
    assert_named_and_mended(check, directory, driver_name, damage.OF_FILES[kind])


@pytest.mark.parametrize("driver_name", ["sqlite"])
@pytest.mark.parametrize("kind", damage.OF_INDEX)
def test_damage_of_the_index_is_named_and_mended(check, directory, driver_name, kind):
    assert_named_and_mended(check, directory, driver_name, damage.OF_INDEX[kind])
