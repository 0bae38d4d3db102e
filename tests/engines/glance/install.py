"""Glance from the package index, in a virtual environment that is kept between runs."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path

#: What is installed. Glance is held still, since the tests are about this one.
PACKAGES = (
    "glance==33.0.0",
    "gunicorn>=23",
    "openstacksdk",
    "python-glanceclient",
    "xattr>=1.1",
)

#: Seconds that an installation may take.
PATIENCE = 1800


def directory() -> Path:
    """Where it is kept: below ``XDG_CACHE_HOME``, else below the system's temporary directory."""
    parent = os.environ.get("XDG_CACHE_HOME") or tempfile.gettempdir()
    return Path(parent) / "cachemw-engines" / "glance"


def program(name: str) -> Path:
    """Give the path of a program in the environment."""
    return directory() / "venv" / "bin" / name


def missing() -> str | None:
    """Say why Glance cannot be started; ``None``: it can."""
    marker = directory() / "installed"
    if not marker.exists() or marker.read_text() != _contents():
        return f"Glance is not installed in {directory()} (CACHEMW_ENGINES=glance installs it)"
    if marker.stat().st_uid != os.getuid():
        # What somebody else put into a directory that all may write to is not run.
        return f"{marker} belongs to somebody else"
    return None


def is_wanted() -> bool:
    """Whether the environment asks for it to be installed."""
    return "glance" in os.environ.get("CACHEMW_ENGINES", "").replace(",", " ").split()


def install() -> None:
    """Install Glance, or find it installed; a second process waits for the first.

    :raises subprocess.CalledProcessError: the package index did not give it.
    """
    directory().mkdir(parents=True, exist_ok=True)
    with open(directory() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if missing() is None:
            return
        subprocess.run(
            [sys.executable, "-m", "venv", directory() / "venv"], check=True, timeout=PATIENCE
        )
        subprocess.run(
            [program("python"), "-m", "pip", "install", "--quiet", *PACKAGES],
            check=True,
            timeout=PATIENCE,
        )
        (directory() / "installed").write_text(_contents())


def _contents() -> str:
    return "\n".join(PACKAGES)
