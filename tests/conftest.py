"""What every suite may use: the drivers by name, other processes, ``--stress``."""

import errno
import os
import signal
import subprocess
import sys

import pytest

#: The drivers that the contract holds for.
DRIVERS = ("sqlite", "xattr")

#: A test that waits for another process for longer than so many seconds has failed.
PATIENCE = 60


def pytest_addoption(parser):
    parser.addoption("--stress", action="store_true", help="run the tests marked stress too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--stress"):
        skip = pytest.mark.skip(reason="long: runs with --stress")
        for item in items:
            # Not by its keywords, which have the names of directories too.
            if item.get_closest_marker("stress"):
                item.add_marker(skip)


def has_attributes(directory):
    """Say whether files in a directory can have extended attributes."""
    try:
        os.setxattr(directory, "user.probe", b"")
    except OSError as exc:
        if exc.errno in (errno.ENOTSUP, errno.EPERM):
            return False
        raise
    return True


@pytest.fixture
def attributes(tmp_path):
    """Skip where files have no extended attributes."""
    if not has_attributes(tmp_path):
        pytest.skip(f"{tmp_path} is on a file system without extended attributes")


@pytest.fixture(params=DRIVERS)
def driver_name(request):
    """Every storage driver's name, one test each."""
    if request.param == "xattr":
        request.getfixturevalue("attributes")
    return request.param


@pytest.fixture
def start_python():
    """Start ``code`` in another interpreter with ``sys.argv[1:] == arguments``."""
    started = []

    def start(code, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            # What it forked goes with it, and may hold its pipes.
            os.killpg(process.pid, signal.SIGKILL)
        with process:
            pass


@pytest.fixture
def run_python(start_python):
    """Run ``code`` in another interpreter; gives what it printed."""

    def run(code, *arguments):
        process = start_python(code, *arguments)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        return output

    return run
