"""``cachemw top`` in a terminal, and without one."""

import fcntl
import itertools
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import pytest

from cachemw import ImageCache
from cachemw.commands import main
from cachemw.core import statistics
from tests.unit.commands.snapshots import snapshot
from tests.waiting import wait_until

#: What shows a snapshot of the tests in place of the cache's own.
CODE = """
import signal, sys
from cachemw.commands import main
from cachemw.core import statistics
from tests.unit.commands.snapshots import snapshot
# Whoever runs the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
statistics.snapshot = lambda cache: snapshot()
sys.exit(main())
"""


@pytest.fixture
def directory(tmp_path):
    ImageCache(dir=tmp_path / "cache").close()
    return str(tmp_path / "cache")


class Screen:
    """The terminal that a process has."""

    def __init__(self, process, master):
        self.process, self.master, self.output = process, master, ""

    def read(self, seconds=0.1):
        """Take what has come."""
        while select.select([self.master], [], [], seconds)[0]:
            try:
                data = os.read(self.master, 65536)
            except OSError:
                break  # nobody has the other end any more
            if not data:
                break
            self.output += data.decode()
        return self.output

    def resize(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def lines(self):
        """What the last drawing put on the screen."""
        last = self.output.rpartition("\x1b[H")[2].partition("\x1b[?")[0]
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).split("\r\n")


@contextmanager
def screen(directory, *arguments, columns=80, lines=24):
    master, slave = pty.openpty()
    environ = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    process = None
    try:
        shown = Screen(None, master)
        shown.resize(columns, lines)
        shown.before = termios.tcgetattr(slave)
        process = shown.process = subprocess.Popen(
            [sys.executable, "-c", CODE, "top", "--dir", directory, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=subprocess.PIPE,
            env=environ,
            start_new_session=True,
        )
        shown.slave = slave
        yield shown
    finally:
        if process is not None:
            if process.poll() is None:
                process.kill()
            process.communicate()
        os.close(slave)
        os.close(master)


def test_top_draws_a_screen_and_leaves_the_terminal_as_it_was(directory):
    with screen(directory) as shown:
        wait_until(lambda: "image-6" in shown.read(), "image-6")
        assert "image-7" not in shown.output
        assert shown.lines()[0].startswith("cachemw 0.1.0  /var/cache/images")
        assert len(shown.lines()) == 24
        os.write(shown.master, b"q")
        wait_until(
            lambda: shown.read() is not None and shown.process.poll() is not None, "top ended"
        )
        assert shown.process.returncode == 0
        assert shown.read().endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(shown.slave) == shown.before
        assert shown.process.stderr.read() == b""


def test_top_follows_the_size_of_the_terminal(directory):
    with screen(directory, "--interval", "1h") as shown:
        wait_until(lambda: "image-6" in shown.read(), "image-6")
        shown.resize(100, 28)
        wait_until(lambda: "image-10" in shown.read(), "image-10")
        assert len(shown.lines()) == 28
        assert len(shown.lines()[0]) == 100
        shown.resize(60, 10)
        wait_until(lambda: shown.read() is not None and len(shown.lines()) == 10, "10 lines")
        assert max(map(len, shown.lines())) <= 60


@pytest.mark.parametrize(
    ("sent", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 128 + signal.SIGTERM)]
)
def test_a_signal_leaves_the_terminal_as_it_was(directory, sent, status):
    with screen(directory) as shown:
        wait_until(lambda: "image-6" in shown.read(), "image-6")
        shown.process.send_signal(sent)
        wait_until(
            lambda: shown.read() is not None and shown.process.poll() is not None, "top ended"
        )
        assert shown.process.returncode == status
        assert shown.read().endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(shown.slave) == shown.before


def test_no_id_steers_the_terminal(directory):
    with screen(directory) as shown:
        wait_until(lambda: "unknown-l" in shown.read(), "unknown-l")
        assert set(re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]", shown.output)) <= {
            "\x1b[?1049h", "\x1b[?25l", "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[1m", "\x1b[0m",
        }  # fmt: skip


def test_once_prints_once(directory, capsys, monkeypatch):
    monkeypatch.setattr(statistics, "snapshot", lambda cache: snapshot())
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["top", "--dir", directory, "--once"]) == 0

    out = capsys.readouterr().out
    assert out.count("In all") == 1
    assert "image-10" in out
    assert "\x1b" not in out


def test_once_as_json_is_the_snapshot(directory, capsys, monkeypatch):
    monkeypatch.setattr(statistics, "snapshot", lambda cache: snapshot())
    assert main(["top", "--dir", directory, "--once", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == snapshot()


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_without_a_terminal_it_prints_one_after_another_until_interrupted(directory, arguments):
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "top", "--dir", directory, "--interval", "0.2", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        begun = [process.stdout.readline() for _ in range(70)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert (process.returncode, err) == (0, "")
    if arguments:
        assert all(json.loads(line) == snapshot() for line in begun[:3])
    else:
        assert sum("In all" in line for line in begun) >= 2


def test_top_looks_again_each_interval(directory, monkeypatch, capsys):
    """Not more often: a look costs something."""
    looks = []

    def look(cache):
        looks.append(time.monotonic())
        if len(looks) == 4:
            raise KeyboardInterrupt
        return snapshot()

    monkeypatch.setattr(statistics, "snapshot", look)
    assert main(["top", "--dir", directory, "--interval", "0"]) == 0
    assert all(later - one >= 0.2 for one, later in itertools.pairwise(looks))
