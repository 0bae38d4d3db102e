"""Wait for what happens in another thread or process, with an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: A test that waits for longer than so many seconds has failed.
PATIENCE = 20


def wait_until(condition: Callable[[], Any], what: str, patience: float = PATIENCE) -> None:
    """Wait until something outside is so.

    :param what: that should become true, for the message.
    """
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so after {patience} s: {what}")
        time.sleep(0.01)
