"""What the crash tests share."""

from __future__ import annotations

import pytest

from . import syncing
from .zygote import running_zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    with running_zygote(tmp_path_factory.mktemp("zygote") / "stderr") as zygote:
        yield zygote


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """The processes that check, like those that are killed, need not sync."""
    syncing.stop(monkeypatch.setattr)
