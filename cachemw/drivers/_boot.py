"""The machine's present boot: what was not synced under another one may be lost.

Imports: nothing of ours.
"""

from __future__ import annotations

import functools


@functools.cache
def boot_id() -> str:
    """Name the present boot; ``"unknown"`` where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
