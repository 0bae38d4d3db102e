"""What a child of fork() must not share with its parent.

A child begins with copies of locks that threads of its parent may have held
at that moment, and with descriptors through which it would go on holding the
parent's file locks. Objects that have such things register here.

Imports: concurrency.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from .. import concurrency


class ForgetsParent(Protocol):
    """Something that is made usable again in each new child."""

    def forget_parent(self) -> None:
        """Drop what belongs to the parent; called in the child, which has one thread."""


_registered: weakref.WeakSet[ForgetsParent] = weakref.WeakSet()


def register(thing: ForgetsParent) -> None:
    """Have ``thing.forget_parent()`` called in every child of fork, for as long as it lives."""
    _registered.add(thing)


class Lock:
    """A lock, ``with`` only, that is free in every new child."""

    def __init__(self) -> None:
        self._lock = concurrency.Lock()
        register(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()

    def forget_parent(self) -> None:
        self._lock = concurrency.Lock()


def _in_child() -> None:
    for thing in list(_registered):
        thing.forget_parent()


os.register_at_fork(after_in_child=_in_child)
