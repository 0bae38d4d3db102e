"""What a driver finds wrong with its directory, and what mends it.

A driver gives one :class:`Inspector` for each kind of thing that it keeps.
Whoever checks asks it what to look at, looks, and looks again with the
directory locked, since servers go on meanwhile; only what is wrong then is.

Imports: nothing of ours.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator
from typing import NamedTuple


class Fault(NamedTuple):
    """One thing that is not as it should be, or that somebody may want to know.

    :param kind: what sort of thing: ``entry``, ``record``, ``sums``, ``index``, ``total``,
        ``fill``, ``invalid``, ``queue``, ``folder``, ``foreign`` or ``mode``.
    :param name: its path under the cache directory.
    :param image_id: of the image that it is about, where that can be told.
    :param problem: a lower-case phrase.
    :param mend: what a repair does; what somebody has to do, if it can do nothing; empty for
        what is no damage.
    :param is_damage: ``False``: nothing is wrong.
    """

    kind: str
    name: str
    image_id: str | None
    problem: str
    mend: str
    is_damage: bool = True


class Inspector(abc.ABC):
    """Looks after one kind of thing. For one thread.

    An ``OSError`` from any method means that it could not be looked at, or mended.
    """

    #: Whether a living process may leave it half done for a moment without the directory's
    #: lock, so that it is only wrong if it is so for longer.
    settles = False

    #: Whether it looks again, and mends, with the directory locked.
    needs_lock = True

    @abc.abstractmethod
    def suspects(self) -> Iterator[str]:
        """Give the names of what is worth a look, in no order."""

    @abc.abstractmethod
    def look(self, name: str) -> Fault | None:
        """Look at one of these; ``None``: it is as it should be, or gone. Changes nothing."""

    @abc.abstractmethod
    def mend(self, name: str) -> bool:
        """Mend what :meth:`look` has just called damage; the directory's lock held.

        May die at any point, and be done again. Loses nothing that is intact.

        :return: whether it is mended.
        """

    def close(self) -> None:
        """Let go of what was opened to look."""
        return
