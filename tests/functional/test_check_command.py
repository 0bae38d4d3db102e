"""``cachemw check`` as a command: its lines, its status, what it leaves alone."""

import os

import pytest

from cachemw import commands
from cachemw.drivers.sqlite import Driver

from ..contract.drivers import store


@pytest.fixture
def directory(tmp_path):
    driver = Driver(str(tmp_path / "cache"))
    driver.configure()
    store(driver, "cat")
    driver.close()
    return tmp_path / "cache"


@pytest.fixture
def check(directory, capsys):
    def run(*arguments):
        status = commands.main(["check", "--dir", str(directory), *arguments])
        output = capsys.readouterr()
        return status, output.out.splitlines(), output.err

    return run


def test_a_clean_cache_has_no_lines_and_status_0(check):
    status, lines, complaints = check()

    assert (status, lines) == (0, [])
    assert "1 verified (5 bytes), 0 wrong" in complaints


def test_each_finding_is_a_line(check, directory):
    (directory / "cat").chmod(0o640)
    line = "{}\tmode\tcat\t\thas the mode 0640: others than its owner may use it\tmake it 0600"

    assert check()[:2] == (1, [line.format("wrong")])
    assert check("--repair")[:2] == (0, [line.format("mended")])
    assert check()[:2] == (0, [])


def test_what_is_no_damage_is_a_note(check, directory):
    (directory / "lost+found").mkdir()

    assert check()[:2] == (
        0,
        ["note\tforeign\tlost+found\t\tis a directory, but no entry\t"],
    )


def test_names_that_cannot_be_printed_do_no_harm(check, directory):
    for name in (b"a\nb\x1b[2J", b"\xff\xfe"):
        (directory / "queue" / os.fsdecode(name)).touch(0o600)
    status, lines, _ = check()

    assert status == 1
    assert sorted(line.split("\t")[2] for line in lines) == [
        "queue/\\udcff\\udcfe",
        "queue/a\\nb\\x1b[2J",
    ]


def test_what_a_repair_cannot_mend_is_status_1(check, directory):
    (directory / "queue" / "waits").mkdir()
    (directory / "queue" / "waits" / "file").touch()
    status, lines, _ = check("--repair")

    assert status == 1
    assert [line.split("\t")[0] for line in lines] == ["wrong"]


def test_no_such_directory_is_status_2_and_nothing_is_made(tmp_path, capsys):
    assert commands.main(["check", "--dir", str(tmp_path / "none")]) == 2
    assert "name a cache directory" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_the_cache_is_found_in_the_ini_file(check, directory, tmp_path, capsys):
    (tmp_path / "server.ini").write_text(
        f"[filter:cache]\nuse = egg:cachemw#cache\ndir = {directory}\n"
    )
    (directory / "cat").write_bytes(b"imagf")

    assert commands.main(["check", "-c", str(tmp_path / "server.ini"), "--repair"]) == 0
    assert "its bytes do not match sha256:" in capsys.readouterr().out
    assert (directory / "invalid" / "cat").read_bytes() == b"imagf"
