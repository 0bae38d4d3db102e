"""What passes between a driver's queue and those who work it.

Imports: nothing of ours.
"""

from __future__ import annotations

import abc
import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is known of a queued image.

    :param url: how a request fetched it; ``None``: no request named it.
    :param tries: how often it was fetched in vain.
    :param after: when it may be tried next, seconds since the epoch.
    :param reason: why the last try failed.
    :param set_aside: whether it is not tried any more.
    """

    url: str | None = None
    tries: int = 0
    after: float = 0.0
    reason: str = ""
    set_aside: bool = False


class Claim(abc.ABC):
    """An image in the queue that nobody else fetches meanwhile.

    The end of the process ends it too.

    :ivar note: what was known of the image when it was claimed.
    """

    image_id: str
    note: Note

    @abc.abstractmethod
    def keep(self, note: Note) -> None:
        """Leave the image in the queue with another note, unless it was taken out.

        :raises DriverError: the note cannot be written.
        """

    @abc.abstractmethod
    def remove(self) -> None:
        """Take the image out of the queue, unless that was done.

        :raises DriverError: it cannot be removed.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let others fetch it; a second close does nothing."""
